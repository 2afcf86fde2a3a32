"""What a label store can hold: by that a folder is known as ours, and only such a folder is removed."""

from __future__ import annotations

import re

from napari_samexp.io.atomic import PARTIAL, patiently
from napari_samexp.io.guarded import Folder, NotOrdinaryError

__all__ = ["MEMORY", "foreign_in", "remove_store", "require_store_files"]

MEMORY = "memory"  # the one folder in a store

# .DS_Store is macOS's doing.
_FILES = re.compile(
    r"zarr\.json|scores\.jsonl|c\.\d+\.0\.0|memory|memory/\d{9}\.safetensors|(.+/)?\.DS_Store"
    r"|prior\.safetensors|added\.safetensors|edited\.json"
)


def foreign_in(folder: Folder) -> str | None:
    """Return the first name in a store's folder that is of nothing a run makes; None if there is none.

    A link counts by its name: removing it harms nothing that it leads to.
    """
    return min((name for name in folder.contents((MEMORY,)) if not _is_own(name)), default=None)


def require_store_files(parent: Folder, name: str) -> None:
    """Raise `NotOrdinaryError` unless `name` is a folder that holds nothing but what a label store does."""
    with parent.inside(name) as folder:
        foreign = foreign_in(folder)
        if foreign is not None:
            raise NotOrdinaryError(
                f"{folder.path} also holds {foreign}, which no run of napari-samexp put there, so it is not removed; "
                "move it away."
            )


def remove_store(parent: Folder, name: str) -> None:
    """Remove a label store, also an unfinished one, if it is there and holds nothing else."""
    if parent.kind(name) is not None:
        require_store_files(parent, name)
        patiently(lambda: parent.remove_tree(name))


def _is_own(name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in (_FILES, PARTIAL))
