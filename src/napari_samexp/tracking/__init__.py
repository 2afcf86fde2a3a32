"""Prior-memory tracking: recorded prompts, the memory bank, and the tracker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_samexp._lazy import lazy_names

if TYPE_CHECKING:
    from napari_samexp.tracking.prior import PriorMemory
    from napari_samexp.tracking.recording import Recording, record, record_mask
    from napari_samexp.tracking.run import open_store, track_into
    from napari_samexp.tracking.settings import TrackSettings
    from napari_samexp.tracking.tracker import Tracker

__all__ = [
    "PriorMemory",
    "Recording",
    "TrackSettings",
    "Tracker",
    "open_store",
    "record",
    "record_mask",
    "track_into",
]

# the settings can be imported in a process without torch
__getattr__ = lazy_names(
    __name__,
    {
        "PriorMemory": "prior",
        "Recording": "recording",
        "TrackSettings": "settings",
        "Tracker": "tracker",
        "open_store": "run",
        "record": "recording",
        "record_mask": "recording",
        "track_into": "run",
    },
)
