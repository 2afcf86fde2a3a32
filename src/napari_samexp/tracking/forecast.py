"""How long a run takes: the multiplications of each frame, and the measured time of the first few. No torch.

The first frames alone predict too little, since they attend to fewer memories than later ones; and neither labels nor
the encode side scale a frame's time by a simple rule. So the multiplications of each frame are counted, the first few
frames are timed, and all other frames and sides are assumed to run at the same pace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

from napari_samexp.sam.variants import EdgeTamVariant, MemoryVariant, Sam2Variant
from napari_samexp.tracking.settings import SIDES, TrackSettings

__all__ = ["ENOUGH", "Forecast", "Work", "proposed_side", "time_words"]

ENOUGH = 3  # frames to time
LONG_S = 600.0  # a smaller side is proposed for a longer run on a CPU
# further costs of a frame and of a label, in multiplications: Python, many small operations, painting
_PER_FRAME, _PER_LABEL = 2_000_000_000, 50_000_000
_PER_TOKEN = 3_000_000  # of the mask decoder and memory encoder, at 256 channels


@dataclass(frozen=True, slots=True)
class Work:
    """What determines the work of a run.

    Parameters
    ----------
    variant : MemoryVariant
    settings : TrackSettings
    image_hw : (int, int)
        Of the video.
    recordings : mapping of int to int
        The number of recordings of each label.
    """

    variant: MemoryVariant
    settings: TrackSettings
    image_hw: tuple[int, int]
    recordings: Mapping[int, int]

    @property
    def side(self) -> int:
        """The longer side of the model's input, in pixels."""
        return self.settings.side or self.variant.image_size

    def at(self, side: int) -> Work:
        """Return the same run at another side."""
        return replace(self, settings=replace(self.settings, side=side))

    def multiplications(self, seen: int) -> float:
        """Return the multiplications of one frame, after `seen` remembered frames."""
        grid = _grid(self.variant, self.side, self.image_hw, self.settings.square)
        recent = min(seen, self.settings.recent) if self.settings.store_memories else 0
        pointers = min(seen, self.settings.pointers) if self.settings.store_memories else 0
        each = sum(
            _label(self.variant, grid, own + recent, own + pointers) for own in self.recordings.values()
        )
        return _PER_FRAME + _encoder(self.variant, grid) + _shared(self.variant, grid) + each


class Forecast:
    """Times the first frames of a run and estimates the time of all.

    Parameters
    ----------
    work : Work
    seen : int
        Frames that an earlier part of the run has remembered already.
    """

    def __init__(self, work: Work, seen: int = 0) -> None:
        self.work = work
        self._seen = seen
        self._paces: list[float] = []  # seconds a multiplication

    def observe(self, seconds: float) -> None:
        """Add the time of the next frame."""
        if len(self._paces) < ENOUGH:
            self._paces.append(seconds / self.work.multiplications(self._seen))
        self._seen += 1

    @property
    def ready(self) -> bool:
        """Whether enough frames were timed."""
        return len(self._paces) >= ENOUGH

    def left(self, frames: int) -> float | None:
        """Return the seconds of `frames` further frames of the run; None while unknown."""
        return self._after(self.work, frames, self._seen)

    def seconds(self, work: Work, frames: int) -> float | None:
        """Return the seconds of a whole run with the same model, at the same pace; None while unknown."""
        return self._after(work, frames, 0)

    def _after(self, work: Work, frames: int, seen: int) -> float | None:
        if not self.ready:
            return None
        filling = min(frames, max(0, max(work.settings.recent, work.settings.pointers) - seen))
        total = sum(work.multiplications(seen + i) for i in range(filling))
        total += (frames - filling) * work.multiplications(seen + filling)
        # the median: the first frame also fills tables and memory, and another program may disturb one
        return median(self._paces) * total


def proposed_side(forecast: Forecast, work: Work, frames: int, device: str) -> int | None:
    """Return a smaller side to propose for a long run on a CPU, or None.

    It is the largest preset with which the run takes at most ten minutes, or else the smallest.
    """
    seconds = forecast.seconds(work, frames)
    if device != "cpu" or seconds is None or seconds <= LONG_S:
        return None
    smaller = [side for side in SIDES if side < work.side]
    quick = [side for side in smaller if (forecast.seconds(work.at(side), frames) or 0.0) <= LONG_S]
    return quick[0] if quick else smaller[-1] if smaller else None


def time_words(seconds: float) -> str:
    """Return a duration in words, rounded as an estimate should be."""
    if seconds < 55:
        return f"{max(1, round(seconds))} s" if seconds < 10 else f"{5 * round(seconds / 5)} s"
    if seconds < 57.5 * 60:
        minutes = seconds / 60
        return f"{round(minutes) if minutes < 10 else 5 * round(minutes / 5)} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 10 else f"{round(hours)} h"


def _grid(variant: MemoryVariant, side: int, image_hw: tuple[int, int], square: bool) -> tuple[int, int]:
    """Return height and width of the token grid."""
    step, longest = variant.side_multiple, max(image_hw)
    sides = (
        (side, side)
        if square
        else tuple(max(step, round(n * side / longest / step) * step) for n in image_hw)
    )
    return sides[0] // variant.patch, sides[1] // variant.patch


def _encoder(variant: MemoryVariant, grid_hw: tuple[int, int]) -> float:
    """Return the multiplications of the image encoder."""
    total = 0.0
    at_stride_4 = 16 * grid_hw[0] * grid_hw[1]
    block = 0
    for stage, depth in enumerate(variant.stages):
        tokens, dim = at_stride_4 / 4**stage, variant.embed_dim * 2**stage
        total += tokens * dim * variant.d_model  # the neck
        for _ in range(depth):
            if isinstance(variant, Sam2Variant):
                window = tokens if block in variant.global_blocks else variant.window_spec[stage] ** 2
                total += tokens * dim * (12 * dim + 2 * min(window, tokens))
            else:
                total += tokens * dim * 4 * dim  # two 1 x 1 convolutions to twice the channels and back
            block += 1
    return total


def _shared(variant: MemoryVariant, grid_hw: tuple[int, int]) -> float:
    """Return the multiplications of the first self-attention of memory attention, which labels share."""
    tokens, dim = grid_hw[0] * grid_hw[1], variant.d_model
    return float(tokens * (4 * dim * dim + 2 * tokens * dim))


def _label(variant: MemoryVariant, grid_hw: tuple[int, int], memories: int, pointers: int) -> float:
    """Return the multiplications for one label: memory attention, mask decoder, memory encoder."""
    tokens, dim, mem = grid_hw[0] * grid_hw[1], variant.d_model, variant.mem_dim
    small = isinstance(variant, EdgeTamVariant)
    each = variant.num_latents + variant.num_latents_2d if isinstance(variant, EdgeTamVariant) else tokens
    keys = memories * each + pointers * math.ceil(dim / mem)
    layer = tokens * (6 * dim * dim + 2 * tokens * dim + 2 * dim * variant.mem_ff)
    layer += keys * (mem * dim + tokens * (dim + (dim if small else mem)))
    own = variant.mem_layers * layer - _shared(variant, grid_hw)
    return _PER_LABEL + own + tokens * _PER_TOKEN * (dim / 256) ** 2
