"""What one object is remembered by during a run: the fixed prior and a bounded recent past."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_samexp.sam.features import Memory
from napari_samexp.sam.models import PRIOR_SLOT
from napari_samexp.sam.variants import MAX_POINTERS
from napari_samexp.tracking.settings import TrackSettings

__all__ = ["MemoryBank", "Recall"]


@dataclass(frozen=True, slots=True, eq=False)
class Recall:
    """The memories of one object as `Sam2.recall` takes them, without the batch axis.

    Parameters
    ----------
    spatial : list of M Tensors, each of shape (mem_dim, h, w)
    slots : list of M int
    pointers : Tensor, shape (P, D)
    times : list of P float
    """

    spatial: list[Tensor]
    slots: list[int]
    pointers: Tensor
    times: list[float]

    @property
    def layout(self) -> tuple[object, ...]:
        """What must be equal for two objects to be recalled in one batch."""
        return (*(tuple(part.shape) for part in self.spatial), len(self.pointers))


class MemoryBank:
    """The memories of one object.

    Parameters
    ----------
    prior : sequence of Memory
        At least one; never forgotten.
    """

    def __init__(self, prior: Sequence[Memory], settings: TrackSettings) -> None:
        self._prior = list(prior)
        self._given = len(self._prior)
        self._settings = settings
        self._recent: deque[tuple[int, Memory]] = deque(maxlen=max(settings.recent, settings.pointers))

    def add_prior(self, memory: Memory) -> None:
        """Add a memory that is never forgotten, after those of the prior."""
        self._prior.append(memory)

    def forget_added(self) -> None:
        """Forget what `add_prior` added."""
        del self._prior[self._given :]

    def store(self, index: int, memory: Memory) -> None:
        """Remember frame `index`; the oldest recent memory makes place."""
        self._recent.append((index, memory))

    def reset(self) -> None:
        """Forget the running video; the prior stays."""
        self._recent.clear()

    @property
    def indices(self) -> list[int]:
        """The frames that are remembered, oldest first."""
        return [index for index, _ in self._recent]

    def recall(self, index: int, steps: int) -> Recall:
        """Return what to look at in frame `index`.

        Recent memories are told apart by their rank, the newest first; where no frame was lost this
        is their distance in frames, as Meta has it. An object that was lost for a while keeps its
        last memories.

        Parameters
        ----------
        steps : int
            Frames since the run's first one.
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
        # as if the recorded images had been the frames just before the run's first one
        return [steps + len(self._prior) - i for i in range(len(self._prior))]
