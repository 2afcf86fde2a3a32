"""The memory bank of one object during a run: its prior, and a bounded number of recent frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_samexp.sam.features import Memory
from napari_samexp.sam.variants import MAX_POINTERS, PRIOR_SLOT
from napari_samexp.tracking.settings import TrackSettings

__all__ = ["MemoryBank", "Recall"]


@dataclass(frozen=True, slots=True, eq=False)
class Recall:
    """The memories of one object as `Sam2.recall` takes them, without the batch axis.

    Parameters
    ----------
    spatial : list of M Tensors, each of shape (mem_dim, h, w)
        Spatial memories, the prior first, then recent frames, the newest last.
    slots : list of M int
        The row of the learned temporal encoding that is added to each.
    pointers : Tensor, shape (P, D)
        Object pointers, the prior first, then recent frames, the newest first.
    times : list of P float
        Temporal distance of each pointer, in units of `TrackSettings.pointer_span` frames.
    """

    spatial: list[Tensor]
    slots: list[int]
    pointers: Tensor
    times: list[float]

    @property
    def shapes(self) -> tuple[object, ...]:
        """The shapes of all memories; objects with equal shapes can be recalled in one batch."""
        return (*(tuple(part.shape) for part in self.spatial), len(self.pointers))


class MemoryBank:
    """The memories of one object.

    Parameters
    ----------
    prior : sequence of Memory
        At least one; kept for the whole run.
    settings : TrackSettings
    """

    def __init__(self, prior: Sequence[Memory], settings: TrackSettings) -> None:
        self._prior = list(prior)
        self._given = len(self._prior)
        self._settings = settings
        self._recent: deque[tuple[int, Memory]] = deque(maxlen=max(settings.recent, settings.pointers))

    def add_prior(self, memory: Memory) -> None:
        """Add a memory to those of the prior, kept for the whole run."""
        self._prior.append(memory)

    def forget_added(self) -> None:
        """Remove the memories that `add_prior` added."""
        del self._prior[self._given :]

    def store(self, index: int, memory: Memory) -> None:
        """Store the memory of frame `index`; beyond the limit, the oldest recent one is dropped."""
        self._recent.append((index, memory))

    def reset(self) -> None:
        """Remove all recent memories; the prior stays."""
        self._recent.clear()

    @property
    def indices(self) -> list[int]:
        """The frames whose memories are stored, oldest first."""
        return [index for index, _ in self._recent]

    def recall(self, index: int, steps: int) -> Recall:
        """Return the memories that frame `index` attends to.

        The temporal slot of a recent memory is its rank, counted from the newest. If the object was in every
        frame, the rank is the distance in frames, as in Meta's code; an object that was lost for a while
        keeps its last memories.

        Parameters
        ----------
        index : int
            The frame to track.
        steps : int
            Frames since the first one of the run.
        """
        newest = [memory for _, memory in reversed(self._recent)]
        recent = newest[: self._settings.recent][::-1]
        pointing = list(reversed(self._recent))[: self._settings.pointers]
        span = self._settings.pointer_span
        distances = [
            *self._prior_distances(steps),
            *(min(abs(index - at), MAX_POINTERS) for at, _ in pointing),
        ]
        return Recall(
            spatial=[memory.spatial for memory in (*self._prior, *recent)],
            slots=[PRIOR_SLOT] * len(self._prior) + list(range(len(recent) - 1, -1, -1)),
            pointers=torch.stack(
                [memory.pointer for memory in (*self._prior, *(memory for _, memory in pointing))]
            ),
            times=[distance / span for distance in distances],
        )

    def _prior_distances(self, steps: int) -> list[int]:
        if self._settings.prior_time == "fixed":
            return [self._settings.prior_distance] * len(self._prior)
        # as if the recorded images were the frames just before the first one of the run
        return [steps + len(self._prior) - i for i in range(len(self._prior))]
