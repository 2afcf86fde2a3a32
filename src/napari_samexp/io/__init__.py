"""Videos, pictures and labels on disk. No torch."""
