"""A session's engine that draws masks instead of asking a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from napari_samexp.engine.messages.base import Reply, Request, VideoRef
from napari_samexp.engine.messages.model import Loaded, LoadModel, ModelInfo
from napari_samexp.engine.messages.prompts import (
    Preview,
    Previewed,
    PriorChanged,
    PriorState,
    Record,
    RecordingInfo,
)
from napari_samexp.sam.variants import VARIANTS, Sam1Variant
from napari_samexp.types import Prompt


class FakeEngine:
    """Answers at once what a model would answer in a moment; keeps what it was asked."""

    def __init__(self, on_reply: Callable[[Reply], None]) -> None:
        self._on_reply = on_reply
        self.asked: list[Any] = []
        self.recordings: tuple[RecordingInfo, ...] = ()
        self.closed = False

    def start(self) -> None:
        pass

    def submit(self, request: Request, holds: tuple[object, ...] = ()) -> int:
        self.asked.append(request)
        number = len(self.asked)
        answer = self._answer(number, request)
        if answer is not None:
            self._on_reply(answer)
        return number

    def share_video(self, source: Any) -> VideoRef:
        return VideoRef("video", tuple(source.shape), stream=1)

    def release_video(self, ref: VideoRef) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def say(self, reply: Reply) -> None:
        """Answer more than `submit` did."""
        self._on_reply(reply)

    def last(self, kind: type) -> Any:
        """Return the newest request of a kind."""
        return next((asked for asked in reversed(self.asked) if isinstance(asked, kind)), None)

    def _answer(self, number: int, request: Request) -> Reply | None:
        if isinstance(request, LoadModel):
            variant = VARIANTS["sam2.1_hiera_tiny"]
            assert not isinstance(variant, Sam1Variant)
            info = ModelInfo("drawn", "SAM 2.1", "w", "cpu", "float32", 64, 32, True, 1000, variant)
            return Loaded(number, info, PriorState(recordings=self.recordings))
        if isinstance(request, Preview):
            height, width = request.image.pixels.shape[:2]
            masks = np.zeros((3, height, width), bool)
            for place in range(3):
                masks[place, : 10 * (place + 1)] = True
            return Previewed(
                number, (height, width), (0.5, 0.9, 0.7), 3.0, 1, np.packbits(masks.reshape(3, -1), axis=1)
            )
        if isinstance(request, Record):
            self.recordings += (recording(f"r{number}", request.label, request.name),)
            return PriorChanged(number, PriorState(recordings=self.recordings, undoable=True))
        return None


def recording(key: str, label: int = 1, name: str = "cat", **more: Any) -> RecordingInfo:
    values: dict[str, Any] = {
        "image_name": "image", "iou": 0.9, "presence": 3.0, "thumbnail": np.full((9, 12, 3), 99, np.uint8),
        "prompt": Prompt(), "mask_index": None, "enabled": True, "painted": False, "usable": True, "model": "drawn",
    }  # fmt: skip
    return RecordingInfo(key, label, name, **{**values, **more})
