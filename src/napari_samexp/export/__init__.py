"""Labels in the formats of other programs. No torch."""
