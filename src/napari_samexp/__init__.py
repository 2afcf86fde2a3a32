"""napari-samexp: what SAM models remember and how they see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_samexp._lazy import lazy_names

if TYPE_CHECKING:
    from napari_samexp.errors import SamexpError
    from napari_samexp.io.labels import LabelStore
    from napari_samexp.io.video import open_video
    from napari_samexp.posenc.api import position_encoding
    from napari_samexp.posenc.map import PosencMap
    from napari_samexp.sam.weights.loading import load_model
    from napari_samexp.tracking.prior import PriorMemory
    from napari_samexp.tracking.recording import record
    from napari_samexp.tracking.run import open_store, track_into
    from napari_samexp.tracking.settings import TrackSettings
    from napari_samexp.tracking.tracker import Tracker
    from napari_samexp.types import Prompt

    __version__: str

__all__ = [
    "LabelStore",
    "PosencMap",
    "PriorMemory",
    "Prompt",
    "SamexpError",
    "TrackSettings",
    "Tracker",
    "__version__",
    "load_model",
    "open_store",
    "open_video",
    "position_encoding",
    "record",
    "track_into",
]

# importing the package imports neither torch nor Qt
_find = lazy_names(
    __name__,
    {
        "LabelStore": "io.labels",
        "PosencMap": "posenc.map",
        "PriorMemory": "tracking.prior",
        "Prompt": "types",
        "SamexpError": "errors",
        "TrackSettings": "tracking.settings",
        "Tracker": "tracking.tracker",
        "load_model": "sam.weights.loading",
        "open_store": "tracking.run",
        "open_video": "io.video",
        "position_encoding": "posenc.api",
        "record": "tracking.recording",
        "track_into": "tracking.run",
    },
)


def __getattr__(name: str) -> Any:
    return _installed_version() if name == "__version__" else _find(name)


def _installed_version() -> str:
    """Return what the installation says; it was read from git's tags when the package was built."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("napari-samexp")
    except PackageNotFoundError:  # a checkout on the path that nobody installed
        return "0+unknown"
