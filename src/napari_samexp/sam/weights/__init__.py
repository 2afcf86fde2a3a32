"""Weights files: the catalogue, downloads, checkpoints and how models are made of them."""
