"""The settings of a tracking run, documented once; the dock's form and the command line are built from them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from napari_samexp.errors import SettingsError
from napari_samexp.sam.variants import MAX_POINTERS, MAX_RECENT

__all__ = ["SIDES", "TrackSettings"]

SIDES = (768, 512)  # below the official models' own 1024, for computers without a GPU


def _setting(
    default: Any, text: str, low: int | None = None, high: int | None = None, presets: tuple[int, ...] = ()
) -> Any:
    return field(default=default, metadata={"help": text, "min": low, "max": high, "presets": presets})


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """How a video is tracked.

    Each field's metadata has its ``help`` text and, for numbers, ``min``, ``max`` and suggested values, ``presets``.

    Raises
    ------
    SettingsError
        If a value is outside its range.
    """

    recent: int = _setting(
        MAX_RECENT, "Recent frames whose memory is attended to, besides the prior.", 0, MAX_RECENT
    )
    pointers: int = _setting(
        MAX_POINTERS, "Recent frames whose object pointer is attended to.", 0, MAX_POINTERS
    )
    store_memories: bool = _setting(
        True, "Store memories of tracked frames; when off, every frame attends to the prior only."
    )
    keep_lost: bool = _setting(
        False, "Also store memories of frames in which the object is lost (presence below 0)."
    )
    side: int | None = _setting(
        None,
        "Side of the model's input in pixels; empty for the model's own. At 512 a frame takes about an eighth of the time at 1024, but small objects may be lost.",
        32,
        4096,
        SIDES,
    )
    square: bool = _setting(
        True, "Stretch frames to a square, as in training; when off, they keep their aspect ratio."
    )
    prior_time: Literal["fixed", "elapsed"] = _setting(
        "fixed",
        "Temporal distance of the prior's pointers: the same in every frame, or growing as in Meta's code.",
    )
    prior_distance: int = _setting(
        1, "The fixed temporal distance of the prior's pointers, in frames.", 0, 1000
    )
    pointer_span: int = _setting(
        MAX_POINTERS,
        "Number of frames by which pointer distances are divided; Meta's code uses min(frames, 16) - 1.",
        1,
        MAX_POINTERS,
    )
    round_memories: bool = _setting(False, "Round spatial memories to bfloat16, as Meta's video code does.")
    direction: Literal["forward", "backward"] = _setting("forward", "Order in which the frames are tracked.")

    def __post_init__(self) -> None:
        for each in fields(self):
            _check(each.name, getattr(self, each.name), str(each.type), each.metadata)

    def to_json(self) -> str:
        """Return the settings as canonical JSON: equal settings give the same text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> TrackSettings:
        """Return the settings that `to_json` wrote.

        Raises
        ------
        SettingsError
            If the text is not JSON or has unknown or bad values.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError, RecursionError):
            raise SettingsError("The settings cannot be read; expected tracking settings as JSON.") from None


CHOICES = {"prior_time": ("fixed", "elapsed"), "direction": ("forward", "backward")}


def _check(name: str, value: Any, kind: str, metadata: Any) -> None:
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise SettingsError(f"The setting {name} is {value!r}; choose {' or '.join(CHOICES[name])}.")
        return
    if kind == "bool":
        if not isinstance(value, bool):
            raise SettingsError(f"The setting {name} is {value!r}; expected true or false.")
        return
    if value is None and "None" in kind:
        return
    low, high = metadata["min"], metadata["max"]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingsError(f"The setting {name} is {value!r}; expected a whole number from {low} to {high}.")
