"""The dock for prior-memory tracking."""
