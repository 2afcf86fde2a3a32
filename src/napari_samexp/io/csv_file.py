"""The only writer of CSV files: atomic, and no cell is a formula or a terminal escape sequence."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from napari_samexp._text import is_control
from napari_samexp.io.atomic import absolute_path, os_errors_as_store_errors, write_atomic

__all__ = ["write_csv"]

# What starts a formula, also in full width; and not only at the start of the text: in much of Europe a
# spreadsheet takes semicolons as separators, and starts a cell after each.
_FORMULA = re.compile(r"(^|;)( *)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table.

    Numbers are written unchanged. In text, line breaks and tabs become spaces, other control characters are
    dropped, and an apostrophe precedes what a spreadsheet would take for a formula.

    Raises
    ------
    StoreError
        If the disk refuses; an existing file is then unchanged.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(map(_cell, head))
    table.writerows(map(_cell, row) for row in rows)
    target = absolute_path(path)
    with os_errors_as_store_errors("write the table", target):
        write_atomic(target, text.getvalue().encode())


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    kept = (c for c in re.sub(r"[\t\r\n]", " ", value) if not is_control(c))
    return _FORMULA.sub(r"\1\2'", "".join(kept).strip())
