"""One sentence for whatever goes wrong in the worker, or with it."""

from __future__ import annotations

import signal

from napari_samexp._urls import redacted
from napari_samexp.errors import NO_MEMORY, SamexpError, ends_for_memory

__all__ = ["Cancelled", "ends_for_memory", "exit_sentence", "sentence_of"]


class Cancelled(Exception):
    """The person at the viewer no longer wants what is being done."""


def sentence_of(error: BaseException) -> str:
    """Return what to tell people of an error."""
    if isinstance(error, SamexpError):
        return str(error)
    if isinstance(error, Cancelled):
        return "Cancelled."
    if ends_for_memory(error):
        return NO_MEMORY
    text = " ".join(redacted(str(error)).split())[:200]
    return f"Something unexpected went wrong ({type(error).__name__}: {text}); the log has the details."


def exit_sentence(code: int | None) -> str:
    """Return what to tell people of a worker that ended by itself."""
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        # what Linux does to the largest process when memory ends
        why = (
            ", often for want of memory: a smaller encode side or model needs less"
            if name == "SIGKILL"
            else ""
        )
        return f"The model's process was ended by the system ({name}{why})"
    return f"The model's process ended by itself (exit code {code})"
