"""The user's settings, in one small file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from napari_samexp._private import make_folders, tighten
from napari_samexp._urls import redacted_url
from napari_samexp.errors import SettingsError
from napari_samexp.io.atomic import write_atomic
from napari_samexp.io.guarded import read_whole
from napari_samexp.tracking.settings import TrackSettings

__all__ = ["LastRun", "Preferences", "load_preferences", "save_preferences"]

VERSION = 1
LARGEST_FILE = 1 << 20
_log = logging.getLogger(__name__)


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class LastRun:
    """The last run of the last session.

    Parameters
    ----------
    store : str
        The label store's folder.
    video : str or None
        None if it was not a file.
    known : tuple of (str, int)
        Key and label of every recording of the run.
    """

    store: str
    video: str | None = None
    known: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Preferences:
    """All settings; `changed` also takes the fields of `track`.

    Each field's metadata holds its ``help`` text.

    Raises
    ------
    SettingsError
        If a value is of the wrong type.
    """

    model: str = _option("starter", "The model: the starter, an official name, or a weights file.")
    device: str = _option("auto", "Where the model runs; auto uses a GPU if there is one.")
    dtype: str = _option(
        "float32",
        "The compute dtype. bfloat16 is much faster on recent CPUs and GPUs, with nearly the same masks; auto uses it on a GPU that supports it, fast also on a CPU where a short trial shows that it is faster.",
    )
    graphs: bool = _option(
        False,
        "On an NVIDIA GPU: capture the work of a frame as CUDA graphs. Two to three times as many frames per second; masks can differ in a few pixels.",
    )
    show_scores: bool = _option(True, "Show presence and predicted IoU beside the labels.")
    hover: bool = _option(False, "Preview a click while the mouse moves.")
    welcomed: bool = _option(False, "The hint for new users was closed.")
    track: TrackSettings = field(default_factory=TrackSettings)
    last_run: LastRun | None = None

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise SettingsError(f"The setting {name} is {value!r}; expected {_WORDS[kind]}.")

    def changed(self, values: Mapping[str, Any]) -> Preferences:
        """Return the preferences with other values, by the names of the fields here or in `track`.

        Raises
        ------
        SettingsError
            If a name is unknown or a value out of range.
        """
        own = {field.name for field in fields(self)}
        deep = {field.name for field in fields(TrackSettings)}
        if unknown := set(values) - own - deep:
            raise SettingsError(f"There is no setting {min(unknown)!r}.")
        given: dict[str, Any] = {name: value for name, value in values.items() if name in own}
        tracking = {name: value for name, value in values.items() if name in deep}
        if tracking:
            given["track"] = replace(given.get("track", self.track), **tracking)
        return replace(self, **given)

    def to_json(self) -> str:
        """Return the preferences as JSON, without passwords in a model's address."""
        return json.dumps({"version": VERSION, **asdict(self), "model": redacted_url(self.model)}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Preferences:
        """Return what `to_json` wrote; `SettingsError` if it is something else.

        Fields that are missing have their defaults, and those of another version are left out.
        """
        try:
            values = json.loads(text)
            track = {
                key: values["track"][key] for key in _names(TrackSettings) & set(values.get("track", {}))
            }
            own = {key: values[key] for key in _names(cls) & set(values) - {"track", "last_run"}}
            last = values.get("last_run")
            run = None if last is None else _last_run(last)
            return cls(**own, track=TrackSettings(**track), last_run=run)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise SettingsError(f"The settings cannot be read ({type(error).__name__}).") from None


def _last_run(values: Mapping[str, Any]) -> LastRun:
    known = tuple((str(key), int(label)) for key, label in values.get("known", ()))
    return LastRun(str(values["store"]), values.get("video"), known)


_KINDS: dict[str, type] = {
    "model": str,
    "device": str,
    "dtype": str,
    "graphs": bool,
    "show_scores": bool,
    "hover": bool,
    "welcomed": bool,
    "track": TrackSettings,
}
_WORDS = {str: "a text", bool: "true or false", TrackSettings: "tracking settings"}


def _names(kind: Any) -> set[str]:
    return {field.name for field in fields(kind)}


def load_preferences(path: Path) -> tuple[Preferences, str]:
    """Return the preferences of a file, and one sentence if the defaults are used instead."""
    tighten(path)  # an earlier version let others read it
    try:
        return Preferences.from_json(read_whole(Path(os.path.realpath(path)), LARGEST_FILE)), ""
    except FileNotFoundError:
        return Preferences(), ""
    except (OSError, SettingsError) as error:
        return Preferences(), f"The settings in {path} cannot be used ({error}) and are reset."


def save_preferences(preferences: Preferences, path: Path) -> None:
    """Write the preferences; an error is only logged."""
    try:
        make_folders(path.parent)
        # not worth making the window wait for the disk
        target = Path(os.path.realpath(path))  # a link is a person's own
        write_atomic(target, preferences.to_json().encode(), durable=False, private=True)
    except OSError:
        _log.warning("the settings could not be saved", exc_info=True)
