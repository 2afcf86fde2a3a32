"""The dock for position encodings."""
