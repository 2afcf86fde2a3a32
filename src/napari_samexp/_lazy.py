"""Modules that are imported late: names when they are first used, and slow modules beside a window."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["import_beside_window", "lazy_names"]

_SWITCH_S = 0.0005
_one_at_a_time = threading.Lock()


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` (PEP 562) for names that live in the package's modules.

    Parameters
    ----------
    package : str
        The package's ``__name__``.
    homes : mapping of str to str
        Names, and the module of the package that each is in.
    """

    def find(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


def import_beside_window(*names: str) -> None:
    """Import modules, on a thread of which a window shall feel nothing.

    The window's thread asks for the interpreter at each of its many small events, and imports are all Python:
    with the usual interval each event would wait 5 ms, and longer beside a second import.
    """
    with _one_at_a_time:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(min(interval, _SWITCH_S))
        try:
            for name in names:
                import_module(name)
        finally:
            sys.setswitchinterval(interval)
