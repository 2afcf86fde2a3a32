"""Slow work on a thread; a `SamexpError` comes back as a value, not as a bug report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.qt.threading import create_worker

from napari_samexp.errors import SamexpError

__all__ = ["in_background"]


def in_background(
    work: Callable[[], Any], then: Callable[[Any], None], failed: Callable[[SamexpError], None]
) -> None:
    """Run `work` on a thread; then call `then` with its result, or `failed`, on the window's thread.

    napari reports any other exception by itself.
    """

    def returned(outcome: tuple[Any, SamexpError | None]) -> None:
        result, error = outcome
        if error is None:
            then(result)
        else:
            failed(error)

    worker = create_worker(_outcome, work)
    worker.returned.connect(returned)
    worker.start()


def _outcome(work: Callable[[], Any]) -> tuple[Any, SamexpError | None]:
    # in a tuple: napari's workers raise an exception that is returned
    try:
        return work(), None
    except SamexpError as error:
        return None, error
