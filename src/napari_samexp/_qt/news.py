"""What one dock has to tell the others of the same napari."""

from __future__ import annotations

from psygnal import Signal

__all__ = ["News", "news"]


class News:
    """Signals between docks that do not know of each other.

    Signals
    -------
    measured : Labels, Evaluation
        A Labels layer was compared with a ground truth.
    """

    measured = Signal(object, object)


news = News()
