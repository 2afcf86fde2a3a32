"""Text for a terminal: aligned columns, and nothing from a file that a terminal would obey."""

from __future__ import annotations

from collections.abc import Sequence

from napari_samexp._text import one_line

__all__ = ["columns"]


def columns(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return a head and rows as lines of aligned columns, all to the right but for the last."""
    cells = [[one_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head) - 1)]
    return ["  ".join([*(cell.rjust(n) for cell, n in zip(row, widths)), row[-1]]).rstrip() for row in cells]
