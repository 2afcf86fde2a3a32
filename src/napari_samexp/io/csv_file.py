"""The one writer of CSV files: whole, and with no cell that a spreadsheet or a terminal would obey."""

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

# What begins a formula, also in full width. Not only where the text begins: where lists are separated by
# semicolons, as in much of Europe, a spreadsheet begins a cell after each of them.
_FORMULA = re.compile(r"(^|;)( *)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table.

    Numbers stay as they are. In text, line breaks and tabs become spaces, other control characters are
    dropped, and an apostrophe is put before what a spreadsheet would take for a formula.

    Raises
    ------
    StoreError
        If the disk refuses; an older file is kept then.
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
