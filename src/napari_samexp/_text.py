"""Text from files, servers and people, made safe to store and to quote. Standard library only."""

from __future__ import annotations

import unicodedata

__all__ = ["LONGEST_NAME", "clean_name", "is_control", "one_line", "plain", "printable"]

LONGEST_NAME = 300  # characters; a file's name has 255 bytes at most, and a frame's number may follow it
_BREAKS = frozenset("\t\n\v\f\r\x85\u2028\u2029")
# reverse the direction of writing, so that a name reads as another one
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# control characters, unpaired surrogates, line and paragraph separators; joiners of letters are none of these
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})


def is_control(character: str) -> bool:
    """Whether a character is a control character, an unpaired surrogate, or a line or paragraph separator."""
    return unicodedata.category(character) in _CONTROLS


def clean_name(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a name from a file on one line, without control characters, and of limited length.

    Parameters
    ----------
    text : str
        Line breaks and tabs become spaces; other control characters and those that change the direction of
        writing are dropped.
    longest : int
        Characters; the end of a longer name is replaced by "…".

    Raises
    ------
    TypeError
        If it is not text.
    """
    if not isinstance(text, str):
        raise TypeError(f"a name is {type(text).__name__}")
    text = text[: 8 * longest]  # a file may hold a name of gigabytes
    spaced = (" " if c in _BREAKS else c for c in text)
    name = "".join(c for c in spaced if not is_control(c) and c not in _DIRECTIONS)
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def printable(text: object) -> str:
    """Return text with a space for each line break, control character or other unprintable character."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def one_line(text: object) -> str:
    """Return text as `printable` does, without spaces at its ends."""
    return printable(text).strip()


def plain(text: object, longest: int = 120) -> str:
    """Return text for quoting in a sentence: printable, single spaces only, at most `longest` characters."""
    line = " ".join(printable(str(text)[: 4 * longest]).split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."
