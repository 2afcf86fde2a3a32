"""Names from outside, as they are kept once a file is read. No imports but the standard library."""

from __future__ import annotations

import unicodedata

__all__ = ["LONGEST_NAME", "clean_name", "plain"]

LONGEST_NAME = 300  # characters; a file's name has 255 bytes at most, and a frame's number may follow it
# what turns the order of letters around, so that a name reads as another one
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# control characters, lone halves of surrogate pairs, line and paragraph separators; joiners of letters stay
_UNSEEN = frozenset({"Cc", "Cs", "Zl", "Zp"})


def clean_name(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a name that a file holds without control characters, on one line, and cut to a length.

    Parameters
    ----------
    text : str
        Line breaks and tabs become spaces; other control characters and those that turn the direction of
        writing are dropped.
    longest : int
        Characters; of a longer name the end is replaced by "…".

    Raises
    ------
    TypeError
        If it is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"a name is {type(text).__name__}")
    text = text[: 8 * longest]  # a file may hold a name of gigabytes
    spaced = "".join(" " if c in "\t\n\v\f\r\x85\u2028\u2029" else c for c in text)
    kept = "".join(c for c in spaced if unicodedata.category(c) not in _UNSEEN and c not in _DIRECTIONS)
    return kept if len(kept) <= longest else f"{kept[: longest - 1]}…"


def plain(text: object, limit: int = 120) -> str:
    """Return text from a file or server as one short line without control characters."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * limit])
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
