"""Every key and click of the docks, in one table: what binds them and what lists them both read it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["CLICKS", "ENCODINGS", "TRACKING", "Shortcut", "as_markdown", "shown"]


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A key, or a way to click, and what it does.

    Parameters
    ----------
    keys : str
        As napari writes it, such as "Shift-N"; of clicks, in words.
    does : str
        What happens, as people say it.
    where : str
        What has to be active for it.
    """

    keys: str
    does: str
    where: str


_PROMPT, _LIST, _MAP = "the prompt's layer", "the list of recordings", "a layer of the encoding"

TRACKING = {
    "record": Shortcut("R", "record the object as it is marked", "anything but shapes of your own"),
    "role": Shortcut("X", "switch between object and background", _PROMPT),
    "remove_click": Shortcut("Backspace", "remove the newest click", _PROMPT),
    "undo_click": Shortcut("Control-Z", "take the last change of the clicks back", _PROMPT),
    "next_lost": Shortcut("N", "go to the next place where it was lost", "anything"),
    "previous_lost": Shortcut("Shift-N", "go to the place before", "anything"),
    "remove_recording": Shortcut("Delete", "remove the selected recording", _LIST),
    "undo_recording": Shortcut("Control-Z", "take the last change of the recordings back", _LIST),
}

CLICKS = (
    Shortcut("Click", "mark the object, or what *click marks* says", _PROMPT),
    Shortcut("Right-click, Alt- or Ctrl-click", "mark the other: background", _PROMPT),
)

ENCODINGS = {
    "previous_channel": Shortcut("Left", "one channel back", _MAP),
    "next_channel": Shortcut("Right", "one channel on", _MAP),
    "channels_on": Shortcut("Up", "ten channels on", _MAP),
    "channels_back": Shortcut("Down", "ten channels back", _MAP),
    "higher": Shortcut("W", "a row of tokens more", _MAP),
    "lower": Shortcut("S", "a row of tokens less", _MAP),
    "wider": Shortcut("D", "a column of tokens more", _MAP),
    "narrower": Shortcut("A", "a column of tokens less", _MAP),
    "window_tile": Shortcut("T", "switch the window tile", _MAP),
}


def shown(keys: str) -> str:
    """Return keys as they stand on a keyboard: "Control-Z" is "Ctrl+Z"."""
    names = {"Control": "Ctrl", "Left": "←", "Right": "→", "Up": "↑", "Down": "↓"}
    return "+".join(names.get(part, part) for part in keys.split("-"))


def as_markdown() -> str:
    """Return all of them as a page."""
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
