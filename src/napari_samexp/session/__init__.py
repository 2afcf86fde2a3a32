"""One session at the viewer, without Qt: the state, the decisions and the signals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_samexp._lazy import lazy_names

if TYPE_CHECKING:
    from napari_samexp.session.encoding_session import EncodingSession
    from napari_samexp.session.encodings import EncodingSource, MapRequest
    from napari_samexp.session.folders import LeftSession, left_sessions
    from napari_samexp.session.frames import lost_frames, next_lost, previous_lost, select_frames
    from napari_samexp.session.jobs import JobState
    from napari_samexp.session.models import ModelOffer, ModelState, model_offers
    from napari_samexp.session.preferences import LastRun, Preferences
    from napari_samexp.session.prompting import MaskPreview
    from napari_samexp.session.session import Leftover, Session
    from napari_samexp.session.stores import default_store

_HOMES = {
    "EncodingSession": "encoding_session",
    "EncodingSource": "encodings",
    "JobState": "jobs",
    "LastRun": "preferences",
    "LeftSession": "folders",
    "Leftover": "session",
    "MapRequest": "encodings",
    "MaskPreview": "prompting",
    "ModelOffer": "models",
    "ModelState": "models",
    "Preferences": "preferences",
    "Session": "session",
    "default_store": "stores",
    "left_sessions": "folders",
    "lost_frames": "frames",
    "model_offers": "models",
    "next_lost": "frames",
    "previous_lost": "frames",
    "select_frames": "frames",
}
__all__ = [
    "EncodingSession",
    "EncodingSource",
    "JobState",
    "LastRun",
    "LeftSession",
    "Leftover",
    "MapRequest",
    "MaskPreview",
    "ModelOffer",
    "ModelState",
    "Preferences",
    "Session",
    "default_store",
    "left_sessions",
    "lost_frames",
    "model_offers",
    "next_lost",
    "previous_lost",
    "select_frames",
]

__getattr__ = lazy_names(__name__, _HOMES)
