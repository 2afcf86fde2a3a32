"""Priors and the tracker: what is remembered, and how a video is searched for it."""

from napari_samexp.tracking.prior import PriorMemory, Recording, record
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.tracking.tracker import Tracker

__all__ = ["PriorMemory", "Recording", "TrackSettings", "Tracker", "record"]
