"""Whatever goes wrong in the worker, or with it, as one sentence and a code."""

from __future__ import annotations

import signal

from napari_samexp._urls import redacted
from napari_samexp.errors import NO_MEMORY, SamexpError, is_out_of_memory

__all__ = ["CANCELLED", "Cancelled", "as_samexp_error", "exit_error"]


class Cancelled(Exception):
    """The user no longer wants what is being done."""


CANCELLED = SamexpError("Cancelled.", code="cancelled")


def as_samexp_error(error: BaseException) -> SamexpError:
    """Return what to show people of any error."""
    if isinstance(error, SamexpError):
        return error
    if isinstance(error, Cancelled):
        return CANCELLED
    if is_out_of_memory(error):
        return SamexpError(NO_MEMORY, code="out-of-memory")
    text = " ".join(redacted(str(error)).split())[:200]
    return SamexpError(
        f"Something unexpected went wrong ({type(error).__name__}: {text}); the log has the details.",
        code="fault",
    )


def exit_error(exit_code: int | None) -> SamexpError:
    """Return what to show people of a worker that ended by itself; the sentence has no full stop yet."""
    if exit_code is None or exit_code >= 0:
        return SamexpError(
            f"The model's process ended by itself (exit code {exit_code})", code="worker-ended"
        )
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    if name == "SIGKILL":  # what Linux does to the largest process when memory runs out
        why = "often because memory ran out: a smaller encode side or model needs less"
        return SamexpError(
            f"The model's process was ended by the system ({name}, {why})", code="out-of-memory"
        )
    return SamexpError(f"The model's process was ended by the system ({name})", code="worker-ended")
