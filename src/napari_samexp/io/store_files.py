"""Which files a label store can contain: a folder is removed only if it has no others."""

from __future__ import annotations

import re

from napari_samexp.io.atomic import PARTIAL, patiently
from napari_samexp.io.guarded import Folder, NotOrdinaryError

__all__ = ["MEMORY", "foreign_in", "remove_store", "require_store_files"]

MEMORY = "memory"  # the one folder in a store

# .DS_Store comes from macOS
_FILES = re.compile(
    r"zarr\.json|scores\.jsonl|c\.\d+\.0\.0|memory|memory/\d{9}\.safetensors|(.+/)?\.DS_Store"
    r"|prior\.safetensors|added\.safetensors|edited\.json"
)


def foreign_in(folder: Folder) -> str | None:
    """Return the first name in a store's folder that no run creates; None if there is none.

    A link is judged by its name: removing it does not touch what it leads to.
    """
    return min((name for name in folder.contents((MEMORY,)) if not _is_own(name)), default=None)


def require_store_files(parent: Folder, name: str) -> None:
    """Raise `NotOrdinaryError` unless `name` is a folder that contains only files of a label store."""
    with parent.inside(name) as folder:
        foreign = foreign_in(folder)
        if foreign is not None:
            raise NotOrdinaryError(
                f"{folder.path} also holds {foreign}, which no run of napari-samexp put there, so it is not removed; "
                "move it away."
            )


def remove_store(parent: Folder, name: str) -> None:
    """Remove a label store, also an unfinished one, if it exists and contains nothing else."""
    if parent.kind(name) is not None:
        require_store_files(parent, name)
        patiently(lambda: parent.remove_tree(name))


def _is_own(name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in (_FILES, PARTIAL))
