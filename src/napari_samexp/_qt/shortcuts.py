"""Every key and click of the docks in one table, from which they are bound and documented."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["CLICKS", "ENCODINGS", "TRACKING", "Shortcut", "as_markdown", "shown"]


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A key or a kind of click, and what it does.

    Parameters
    ----------
    keys : str
        In napari's notation, such as "Shift-N"; for clicks, in words.
    does : str
        What happens.
    where : str
        What must be active.
    """

    keys: str
    does: str
    where: str


_PROMPT, _LIST, _MAP = "the prompt's layer", "the list of recordings", "a layer of the encoding"

TRACKING = {
    "record": Shortcut("R", "record the object", "anything except your own shapes"),
    "role": Shortcut("X", "switch between object and background", _PROMPT),
    "remove_click": Shortcut("Backspace", "remove the newest click", _PROMPT),
    "undo_click": Shortcut("Control-Z", "undo the last change to the clicks", _PROMPT),
    "next_lost": Shortcut("N", "go to the next place where an object was lost", "anything"),
    "previous_lost": Shortcut("Shift-N", "go to the previous place where an object was lost", "anything"),
    "remove_recording": Shortcut("Delete", "remove the selected recording", _LIST),
    "undo_recording": Shortcut("Control-Z", "undo the last change to the recordings", _LIST),
}

CLICKS = (
    Shortcut("Click", "mark what *click marks* says, by default the object", _PROMPT),
    Shortcut("Right-click, Alt- or Ctrl-click", "mark the opposite, by default background", _PROMPT),
)

ENCODINGS = {
    "previous_channel": Shortcut("Left", "one channel back", _MAP),
    "next_channel": Shortcut("Right", "one channel forward", _MAP),
    "channels_on": Shortcut("Up", "ten channels forward", _MAP),
    "channels_back": Shortcut("Down", "ten channels back", _MAP),
    "higher": Shortcut("W", "one more row of tokens", _MAP),
    "lower": Shortcut("S", "one row of tokens less", _MAP),
    "wider": Shortcut("D", "one more column of tokens", _MAP),
    "narrower": Shortcut("A", "one column of tokens less", _MAP),
    "window_tile": Shortcut("T", "switch the window tile on or off", _MAP),
}


def shown(keys: str) -> str:
    """Return keys as printed on a keyboard: "Control-Z" is "Ctrl+Z"."""
    names = {"Control": "Ctrl", "Left": "←", "Right": "→", "Up": "↑", "Down": "↓"}
    return "+".join(names.get(part, part) for part in keys.split("-"))


def as_markdown() -> str:
    """Return all keys and clicks as a page."""
    clicks = [(shortcut.keys, shortcut) for shortcut in CLICKS]
    return "\n".join(
        [
            "# Keys and clicks",
            "\n## Prior tracking\n",
            *_table([*clicks, *_keys(TRACKING.values())]),
            "\n## Position encodings\n",
            *_table(_keys(ENCODINGS.values())),
        ]
    )


def _keys(shortcuts: Iterable[Shortcut]) -> list[tuple[str, Shortcut]]:
    return [(shown(shortcut.keys), shortcut) for shortcut in shortcuts]


def _table(rows: Iterable[tuple[str, Shortcut]]) -> list[str]:
    body = [f"| **{keys}** | {shortcut.does} | {shortcut.where} |" for keys, shortcut in rows]
    return ["| press | to | while this is active |", "|---|---|---|", *body]
