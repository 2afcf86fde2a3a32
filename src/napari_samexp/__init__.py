"""napari-samexp: what SAM models remember and how they see."""

__version__ = "0.1.0.dev0"
