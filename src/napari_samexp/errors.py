"""Errors that a person can do something about: one sentence with what was found, what was expected and what to do."""

from __future__ import annotations

from napari_samexp._text import printable
from napari_samexp._urls import redacted

__all__ = [
    "LONGEST_SENTENCE",
    "NO_MEMORY",
    "CheckpointError",
    "ImageError",
    "PriorError",
    "PriorMismatch",
    "PromptError",
    "SamexpError",
    "SettingsError",
    "StoreError",
    "VideoError",
    "ends_for_memory",
]

LONGEST_SENTENCE = 1000  # characters; a file may hold a name of any length


class SamexpError(Exception):
    """Anything a user can do something about: one sentence with what was found, expected, and to do.

    Parameters
    ----------
    sentence : str
        May quote names from files and addresses: line breaks and control characters become spaces, logins and
        queries of addresses are left out, and of a very long one the middle.
    """

    def __init__(self, sentence: object = "") -> None:
        line = printable(redacted(str(sentence)))
        if len(line) > LONGEST_SENTENCE:  # what was found comes first, what to do last
            line = f"{line[: LONGEST_SENTENCE // 2]} ... {line[-LONGEST_SENTENCE // 2 :]}"
        super().__init__(line)


# what to tell people when `ends_for_memory`
NO_MEMORY = "There was not enough memory for this; choose a smaller encode side or a smaller model."
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def ends_for_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of the GPU, was not enough."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


class CheckpointError(SamexpError):
    """A weights file is missing, damaged, or not a SAM checkpoint."""


class ImageError(SamexpError):
    """An image cannot be read or has a shape or type that cannot be used."""


class PromptError(SamexpError):
    """Clicks or a box that make no sense for the image."""


class PriorError(SamexpError):
    """A prior file cannot be read, or a prior cannot be used as asked."""


class PriorMismatch(PriorError):
    """A prior was recorded with another model or encode side than the one that shall use it."""


class SettingsError(SamexpError):
    """A setting has a value outside its range."""


class StoreError(SamexpError):
    """A label store cannot be read, written, or belongs to another run."""


class VideoError(SamexpError):
    """A video cannot be opened or a frame cannot be decoded."""
