"""Every knob of a tracking run, documented once; forms and command lines are built from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from napari_samexp.errors import SettingsError
from napari_samexp.sam.variants import MAX_POINTERS, MAX_RECENT

__all__ = ["SIDES", "TrackSettings"]

SIDES = (768, 512)  # good ones below the official models' own 1024, for computers without a GPU


def _knob(
    default: Any, text: str, low: int | None = None, high: int | None = None, presets: tuple[int, ...] = ()
) -> Any:
    return field(default=default, metadata={"help": text, "min": low, "max": high, "presets": presets})


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """How a video is tracked.

    Each field's metadata holds its ``help`` text and, for numbers, ``min``, ``max`` and good values, ``presets``.

    Raises
    ------
    SettingsError
        If a value is outside its range.
    """

    recent: int = _knob(
        MAX_RECENT, "Recent frames whose memory is looked at, beside the prior.", 0, MAX_RECENT
    )
    pointers: int = _knob(MAX_POINTERS, "Recent frames whose object pointer is looked at.", 0, MAX_POINTERS)
    store_memories: bool = _knob(True, "Remember tracked frames; off, every frame sees the prior alone.")
    keep_lost: bool = _knob(False, "Remember also frames in which the object was lost (presence below 0).")
    side: int | None = _knob(
        None,
        "Side of the model's input in pixels; empty for the model's own. At 512 a frame takes about an eighth of the time at 1024, and small things get lost.",
        32,
        4096,
        SIDES,
    )
    square: bool = _knob(
        True, "Stretch frames to a square, as the model was trained; off keeps their aspect."
    )
    prior_time: Literal["fixed", "elapsed"] = _knob(
        "fixed",
        "Distance in time of the prior's pointers: the same in every frame, or growing as in Meta's code.",
    )
    prior_distance: int = _knob(1, "The fixed distance of the prior's pointers, in frames.", 0, 1000)
    pointer_span: int = _knob(
        MAX_POINTERS,
        "Frames by which pointer distances are divided; Meta takes min(frames, 16) - 1.",
        1,
        MAX_POINTERS,
    )
    round_memories: bool = _knob(False, "Round spatial memories to bfloat16, as Meta's video code does.")
    direction: Literal["forward", "backward"] = _knob("forward", "Order in which frames are tracked.")

    def __post_init__(self) -> None:
        for knob in fields(self):
            _check(knob.name, getattr(self, knob.name), str(knob.type), knob.metadata)

    def to_json(self) -> str:
        """Return the settings as canonical JSON: equal settings give equal text."""
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
            raise SettingsError(
                "The settings cannot be read; expected the JSON text of tracking settings."
            ) from None


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
