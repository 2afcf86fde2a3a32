"""The docks for measuring labels and comparing runs."""
