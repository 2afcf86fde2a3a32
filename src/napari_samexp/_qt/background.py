"""Work on a thread whose expected errors come back as words, not as a report of a fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.qt.threading import create_worker

from napari_samexp.errors import SamexpError

__all__ = ["in_background"]


def in_background(
    work: Callable[[], Any], then: Callable[[Any], None], failed: Callable[[SamexpError], None]
) -> None:
    """Run `work` on a thread, and `then` with what it returns, or `failed`, on the window's thread.

    Any other exception is a fault, of which napari tells by itself.
    """

    def ended(outcome: tuple[Any, SamexpError | None]) -> None:
        result, error = outcome
        if error is None:
            then(result)
        else:
            failed(error)

    worker = create_worker(_outcome, work)
    worker.returned.connect(ended)
    worker.start()


def _outcome(work: Callable[[], Any]) -> tuple[Any, SamexpError | None]:
    # in a tuple: napari's threads raise an exception that is returned
    try:
        return work(), None
    except SamexpError as error:
        return None, error
