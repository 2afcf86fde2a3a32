"""A tracking run of a second, for tests in this process and for one that is killed in its own.

    python -m tests.tiny_run STORE DIRECTION KEEP_LOST

tracks the drawn video into STORE and writes a line on standard output after each finished frame.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from napari_samexp.sam import Sam2
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, record
from napari_samexp.tracking.run import open_store, track_into
from napari_samexp.types import Prompt

FRAMES, HEIGHT, WIDTH = 10, 48, 64
SIDE = 64


class ArrayVideo:
    """Frames in memory, (T, Y, X, 3) uint8, in the place of a `VideoSource`."""

    fps = 10.0

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames
        self.asked: list[int] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return self.frames.shape

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.frames.tobytes()).hexdigest()

    def frame(self, index: int) -> np.ndarray:
        self.asked.append(index)
        return self.frames[index]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.frames[key]


def drawn_frames(count: int = FRAMES) -> np.ndarray:
    """Return frames of a bright disc that wanders over noise."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = random.integers(0, 120, (count, HEIGHT, WIDTH, 3), np.uint8)
    for i, frame in enumerate(frames):
        centre = HEIGHT / 2 + 12 * np.sin(i), WIDTH / 2 + 18 * np.cos(0.7 * i)
        frame[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (6 + i % 5) ** 2] = (230, 120 + 9 * i, 40)
    return frames


def unsure(model: Sam2) -> Sam2:
    """Change a SAM 2.1 of the reference's weights so that it loses objects in some of the drawn frames.

    Each label in frames of its own; priors are recorded before, when it was sure.
    """
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias -= 0.24
    return model


def prior_of(model: Sam2, prompts: Sequence[tuple[int, Prompt]], side: int = SIDE) -> PriorMemory:
    """Return a prior with a recording for each (label, prompt), all on one drawn image."""
    image = drawn_frames(1)[0]
    features = model.encode(image, side=side)
    prior = PriorMemory()
    for label, prompt in prompts:
        made = record(model, image, features, prompt, model.segment(features, prompt), label=label, side=side)
        prior = prior.with_recording(*made)
    return prior


PROMPTS = (
    (1, Prompt.from_lists([[50, 24]])),
    (3, Prompt.from_lists([[20, 20], [30, 12]], [[5, 40]])),
    (3, Prompt.from_lists(box=[8, 8, 40, 40])),
    (300, Prompt.from_lists([[10, 40]], box=[2, 20, 30, 46])),
)


def settings_of(direction: str = "forward", keep_lost: bool = False) -> TrackSettings:
    """Return settings under which a run of few frames forgets its oldest memories."""
    return TrackSettings(
        side=SIDE, recent=2, pointers=4, prior_time="elapsed", direction=direction, keep_lost=keep_lost
    )


def order_of(settings: TrackSettings, count: int = FRAMES) -> range:
    """Return all frames in the order of tracking."""
    return range(count) if settings.direction == "forward" else range(count - 1, -1, -1)


def main(store_path: str, direction: str, keep_lost: str) -> None:
    """Track into a store, as another process that may be killed."""
    from tests.parity import golden, parity

    model = golden.load_reference(parity.SELECTION, "SAM 2.1")
    settings, video = settings_of(direction, keep_lost == "True"), ArrayVideo(drawn_frames())
    prior = prior_of(model, PROMPTS)
    unsure(model)
    with open_store(store_path, model, prior, settings, video, resume=True) as store:
        for result in track_into(store, Tracker(model, prior, settings), video, order_of(settings)):
            sys.stdout.write(f"{result.index}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
