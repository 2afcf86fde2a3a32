"""Checks of a pickle before it is unpickled. Nothing in it is run, built or called."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

__all__ = ["require_shallow"]

DEEPEST = 16  # torch's own files have tuples of tuples of tuples
MOST = 300_000  # values that are built; the largest official file has 14,000, an optimizer beside it three times those
# allowed by torch's safe unpickler although no weights need it: a few bytes of file can allocate all memory
_GREEDY = ("builtins bytearray", "__builtin__ bytearray", "_codecs encode")
_LEGACY = 5  # pickles in a row in torch's format before 1.6


def require_shallow(path: Path) -> None:
    """Raise if a pickle of a weights file would keep torch's safe unpickler busy for ever.

    Nested tuples cost a few bytes a level. One that is a key of a dict has to be hashed, which takes twice as
    long with each level.

    Raises
    ------
    ValueError
        If tuples are nested deeper than any that torch writes, there are far more values than the weights of
        any model need, a function that allocates at will is called, or the file holds no complete pickle.
    """
    made = 0
    for pickle in _pickles(path):
        for depth in _depths(pickle):
            made += 1
            if depth > DEEPEST:
                raise ValueError("its tuples are nested too deep")
            if made > MOST:
                raise ValueError(
                    f"it is made of more than {MOST} parts, far more than a model's weights need"
                )


def _pickles(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            for _ in range(_LEGACY):
                place = file.tell()
                if not file.read(1):
                    return
                file.seek(place)
                yield file
            return
        with zipfile.ZipFile(file) as archive:
            for record in archive.infolist():
                if record.filename.endswith("data.pkl"):
                    yield BytesIO(archive.read(record))  # stored as it is, so no larger than the file


def _depths(pickle: BinaryIO) -> Iterator[int]:
    """Run a pickle's opcodes on depths instead of values, and yield the depth of each value that is built."""
    stack: list[int | None] = []  # None is a mark
    memo: dict[int, int] = {}
    for code, argument, _ in pickletools.genops(pickle):
        if code.name == "MARK":
            stack.append(None)
        elif code.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1] or 0
        elif code.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo.get(argument or 0, 0))
        elif code.name == "DUP":
            stack.append(stack[-1])
        elif code.name == "GLOBAL" and argument in _GREEDY:
            raise ValueError(f"it calls {argument}")
        else:
            depth = _taken(stack, code) + code.name.startswith("TUPLE")
            stack += [depth] * len(code.stack_after)
            yield depth


def _taken(stack: list[int | None], code: pickletools.OpcodeInfo) -> int:
    """Pop an opcode's arguments from the stack, and return the depth of the deepest."""
    before = code.stack_before
    marked = pickletools.markobject in before
    depth = 0
    if marked:
        while (top := stack.pop()) is not None:
            depth = max(depth, top)
    for _ in range(before.index(pickletools.markobject) if marked else len(before)):
        depth = max(depth, stack.pop() or 0)
    return depth
