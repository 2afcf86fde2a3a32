"""Images and videos drawn from labels, scores and comparisons. No torch."""
