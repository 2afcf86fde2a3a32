"""Signals between docks of the same napari that do not know each other."""

from __future__ import annotations

from psygnal import Signal

__all__ = ["DockSignals", "dock_signals"]


class DockSignals:
    """Signals that any dock may emit and any other may connect to.

    Signals
    -------
    evaluated : Labels, Evaluation
        A Labels layer was compared with ground truth.
    """

    evaluated = Signal(object, object)


dock_signals = DockSignals()
