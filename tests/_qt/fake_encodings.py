"""An engine that draws position encodings instead of reading weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from napari_samexp.engine.messages.base import Failed, Reply, Request
from napari_samexp.engine.messages.encodings import (
    ComputeEncoding,
    DescribeEncodings,
    EncodingComputed,
    Encodings,
)
from napari_samexp.engine.sharing import write_shared
from napari_samexp.sam.encoding_spec import EncodingSpec

SAM2 = (
    EncodingSpec("absolute", "absolute", "Added to patch tokens.", 6, (8, 8), tiled=True),
    EncodingSpec("rotary", "rotary", "Turns pairs.", 4, (4, 4)),
    EncodingSpec("times", "times", "Learned times.", 4, (1, 7), resizable=False, kind="frames"),
)
SAM1 = (EncodingSpec("absolute", "absolute", "Added to patch tokens.", 11, (4, 4)),)


def drawn(request: ComputeEncoding, part: EncodingSpec) -> np.ndarray:
    """Return values that differ by place, channel, tile and type, louder from channel to channel."""
    channels, height, width = part.map_shape(request.grid_hw)
    c, y, x = np.mgrid[:channels, :height, :width]
    values = (1 + c) * np.cos(0.7 * y + (1 + c) * x) + c + (0 if request.window_tile else 100)
    return (values * (1 if request.dtype == "float32" else 0.5)).astype(np.float32)


class FakeEncodings:
    """Answers at once; a model called "sam1" has other parts, and one called "none" fails."""

    def __init__(self, on_reply: Callable[[Reply], None]) -> None:
        self._on_reply = on_reply
        self.asked: list[Any] = []
        self.closed = False

    def start(self) -> None:
        pass

    def submit(self, request: Request, holds: tuple[object, ...] = ()) -> int:
        self.asked.append(request)
        self._on_reply(self._answer(len(self.asked), request))
        return len(self.asked)

    def close(self) -> None:
        self.closed = True

    @property
    def maps(self) -> list[ComputeEncoding]:
        return [asked for asked in self.asked if isinstance(asked, ComputeEncoding)]

    def _answer(self, number: int, request: Any) -> Reply:
        if request.model == "none":
            return Failed(number, "There is no such file; choose another.")
        parts = SAM1 if request.model == "sam1" else SAM2
        if isinstance(request, DescribeEncodings):
            return Encodings(number, request.model, "drawn", f"{request.model}.pt", parts)
        part = next(part for part in parts if part.name == request.part)
        values = drawn(request, part)
        write_shared(request.into, values)
        return EncodingComputed(number, values.shape)
