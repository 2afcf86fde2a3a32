"""One sentence for whatever goes wrong in the worker, or with it."""

from __future__ import annotations

import signal

from napari_samexp.types import SamexpError

__all__ = ["Cancelled", "ends_for_memory", "exit_sentence", "sentence_of"]

_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


class Cancelled(Exception):
    """The person at the viewer no longer wants what is being done."""


def ends_for_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of the GPU, was not enough."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def sentence_of(error: BaseException) -> str:
    """Return what to tell people of an error."""
    if isinstance(error, SamexpError):
        return str(error)
    if isinstance(error, Cancelled):
        return "Cancelled."
    if ends_for_memory(error):
        return "There was not enough memory for this; choose a smaller encode side or a smaller model."
    text = " ".join(str(error).split())[:200]
    return f"Something unexpected went wrong ({type(error).__name__}: {text}); the log has the details."


def exit_sentence(code: int | None) -> str:
    """Return what to tell people of a worker that ended by itself."""
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        why = ", often for want of memory" if name == "SIGKILL" else ""
        return f"The model's process was ended by the system ({name}{why})"
    return f"The model's process ended by itself (exit code {code})"
