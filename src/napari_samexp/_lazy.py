"""Late imports: names when they are first used, and slow modules in the background of a window."""

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
        From each name to the module of the package that defines it.
    """

    def find(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


def import_beside_window(*names: str) -> None:
    """Import modules on a background thread without slowing the GUI thread down.

    Importing holds the GIL, and the GUI thread needs the GIL at each of its many small events: with the default
    switch interval each event would wait 5 ms, and longer during a second import.
    """
    with _one_at_a_time:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(min(interval, _SWITCH_S))
        try:
            for name in names:
                import_module(name)
        finally:
            sys.setswitchinterval(interval)
