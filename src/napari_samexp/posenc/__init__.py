"""Position encodings as arrays, maps and sheets."""
