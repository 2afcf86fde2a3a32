"""Starting Python processes that do not import from the current folder.

People open shared files where they lie. A Python that is started with ``-c`` or ``-m`` imports from its current
folder first, and multiprocessing hands a new process the `sys.path` of the old one. So a ``pickle.py`` beside a
video would run in the model's process, in a worker of a batch, and in multiprocessing's resource tracker.
"""

from __future__ import annotations

import os
import select
import site
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing import process
from pathlib import Path

__all__ = ["SAFE_PATH", "keep_tracker", "starting_python"]

SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # for the environment of a child, which its own children inherit

_tracker = -1  # what the resource tracker reads from is open here for writing


class _Shared:
    """A change to this process, shared by starts on several threads: the first makes it, the last undoes it."""

    def __init__(self, change: Callable[[], AbstractContextManager[None]]) -> None:
        self._change, self._lock, self._users = change, threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._made = self._change()
                self._made.__enter__()
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._made.__exit__(None, None, None)


@contextmanager
def _all_hidden() -> Iterator[None]:
    folders = _unsafe_folders()  # before the main module's file is hidden
    with _safe_environment(), _path_without(folders), _main_module_hidden():
        yield


starting_python = _Shared(_all_hidden)
"""``with starting_python:`` start processes by multiprocessing, or by a library that uses it.

In the block this process has PYTHONSAFEPATH in its environment, no current folder in `sys.path`, and a main module
that no child runs again; after it, everything is as before. ``python -E`` ignores the variable.
"""


def keep_tracker() -> None:
    """Start multiprocessing's resource tracker safely, if it does not run; call before anything that may start it."""
    global _tracker
    if os.name == "nt" or sys.flags.safe_path or _is_read(_tracker):
        return
    from multiprocessing import resource_tracker

    with starting_python:
        _tracker = resource_tracker.getfd() or -1


def _is_read(pipe: int) -> bool:
    """Whether the other end of a pipe is open."""
    if pipe < 0:
        return False
    poll = select.poll()
    poll.register(pipe, 0)  # errors are always reported
    return not poll.poll(0)


@contextmanager
def _safe_environment() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in SAFE_PATH}
    os.environ.update(SAFE_PATH)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _path_without(folders: set[str]) -> Iterator[None]:
    """Hide entries of `sys.path` that are relative or lead to one of the folders."""
    hidden = [(place, entry) for place, entry in enumerate(sys.path) if _is_unsafe(entry, folders)]
    sys.path[:] = [entry for entry in sys.path if not _is_unsafe(entry, folders)]
    try:
        yield
    finally:
        for place, entry in hidden:
            sys.path.insert(place, entry)


def _is_unsafe(entry: object, folders: set[str]) -> bool:
    if not isinstance(entry, str):  # Python ignores it
        return False
    return _real(entry) in folders or not (Path(entry).is_absolute() or _real(entry) in _installed())


def _unsafe_folders() -> set[str]:
    """Return the folders that Python itself puts first: the current one, now and at the start, or the script's."""
    folders: list[str | Path | None] = [process.ORIGINAL_DIR]  # type: ignore[attr-defined]
    with suppress(OSError):  # it was deleted
        folders.append(Path.cwd())
    script = getattr(sys.modules["__main__"], "__file__", None)
    folders.append(script and Path(script).parent)
    return {_real(folder) for folder in folders if folder} - _installed()


def _installed() -> set[str]:
    """Return the folders that Python, this package and what it needs live in."""
    own = [Path(__file__).parents[1], Path(os.__file__).parent]
    return {*map(_real, own), *map(_real, [*site.getsitepackages(), site.getusersitepackages()])}


def _real(path: str | Path) -> str:
    return os.path.normcase(os.path.realpath(path))


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep the new process from running this one's main module.

    The spawn method runs the main script again in the child, under another name. Here that would be
    napari with all of Qt, or a person's script without a guard; no child of ours needs any of it.
    """
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name) for name in ("__spec__", "__file__") if hasattr(main, name)}
    try:
        main.__spec__ = None
        with suppress(AttributeError):
            del main.__file__
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)
