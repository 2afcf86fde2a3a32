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
    "code_of",
    "is_out_of_memory",
    "sam1_has_no_memory",
]

LONGEST_SENTENCE = 1000  # characters; a file may hold a name of any length


class SamexpError(Exception):
    """Anything a user can do something about: one sentence with what was found, expected, and to do.

    Parameters
    ----------
    sentence : str
        May quote names from files and addresses: line breaks and control characters become spaces, logins and
        queries of addresses are removed, and a very long sentence loses its middle.
    code : str, optional
        A finer code than that of the class.

    Attributes
    ----------
    code : str
        What went wrong, as data: the dock maps it to an entry of the troubleshooting page.
    """

    code = "error"

    def __init__(self, sentence: object = "", *, code: str = "") -> None:
        line = printable(redacted(str(sentence)))
        if len(line) > LONGEST_SENTENCE:  # what was found comes first, what to do last
            line = f"{line[: LONGEST_SENTENCE // 2]} ... {line[-LONGEST_SENTENCE // 2 :]}"
        super().__init__(line)
        if code:
            self.code = code


NO_MEMORY = "There was not enough memory for this; choose a smaller encode side or a smaller model."
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the machine or the GPU ran out of memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # torch and drivers have no class for it
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def code_of(error: BaseException, default: str = "fault") -> str:
    """Return the code of an error; `default` for one without a code, by default that of a bug."""
    if is_out_of_memory(error):
        return "out-of-memory"
    code = getattr(error, "code", None)  # some libraries' errors have a number of that name
    return code if isinstance(code, str) else default


class CheckpointError(SamexpError):
    """A weights file is missing, damaged, or not a SAM checkpoint."""

    code = "weights"


class ImageError(SamexpError):
    """An image cannot be read or has a shape or type that cannot be used."""

    code = "image"


class PromptError(SamexpError):
    """Clicks or a box that make no sense for the image."""

    code = "prompt"


class PriorError(SamexpError):
    """A prior file cannot be read, or a prior cannot be used this way."""

    code = "prior"


class PriorMismatch(PriorError):
    """A prior was recorded with another model or encode side than the one that should use it."""

    code = "prior-of-another-model"


class SettingsError(SamexpError):
    """A setting has a value outside its range."""

    code = "settings"


class StoreError(SamexpError):
    """A label store cannot be read or written, or belongs to another run."""

    code = "labels"


class VideoError(SamexpError):
    """A video cannot be opened or a frame cannot be decoded."""

    code = "video"


def sam1_has_no_memory(model: str) -> PriorError:
    """Return the error for a SAM 1 model where memory is needed."""
    return PriorError(
        f"{model} is a SAM 1 model, which has no memory; choose a SAM 2, SAM 2.1 or EdgeTAM model.",
        code="no-memory-model",
    )
