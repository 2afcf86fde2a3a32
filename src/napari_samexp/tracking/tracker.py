"""Frame by frame: look at the prior and the recent past, find each object, remember it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_samexp.errors import PriorError, SettingsError
from napari_samexp.sam.features import ImageFeatures, Memory, check_side
from napari_samexp.sam.models import Sam2, Tracked
from napari_samexp.tracking.bank import MemoryBank
from napari_samexp.tracking.prior import PriorMemory
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import FrameResult, ObjectScore, VideoSource

__all__ = ["Tracker"]

FrameMemories = Mapping[int, Memory]  # by label
TOGETHER = 4  # labels that go through the model in one batch, so that memory does not grow with their number


class Tracker:
    """Finds a prior's objects in the frames of a video.

    Parameters
    ----------
    model : Sam2
    prior : PriorMemory
        Recorded with this model.
    settings : TrackSettings, optional

    Raises
    ------
    PriorError, PriorMismatch
        If the prior is empty or from another model, or the model has no memory.
    SettingsError
        If the model cannot take the encode side.
    """

    def __init__(self, model: Sam2, prior: PriorMemory, settings: TrackSettings | None = None) -> None:
        prior.require(model)
        self.settings = settings or TrackSettings()
        check_side(model.variant, self.settings.side)
        self.model = model
        self.labels = prior.labels
        self.recorded = {label: len(prior.of_label(label)) for label in self.labels}
        self._banks = {
            label: MemoryBank([self._placed(memory) for memory in prior.of_label(label)], self.settings)
            for label in self.labels
        }
        self._first: int | None = None
        self.last_memories: dict[int, Memory] = {}

    def run(self, video: VideoSource, frames: Iterable[int] | None = None) -> Iterator[FrameResult]:
        """Yield the results of frames, in their order, or of all frames in the settings' direction."""
        if frames is None:
            frames = (
                range(len(video)) if self.settings.direction == "forward" else range(len(video) - 1, -1, -1)
            )
        for index in frames:
            yield self.step(video.frame(index), index)

    @torch.inference_mode()
    def step(self, frame: npt.ArrayLike, index: int) -> FrameResult:
        """Return the labels of one frame and remember it.

        Parameters
        ----------
        frame : array
            (H, W, 3) uint8 RGB, or any image that `Sam2.encode` takes.
        index : int
            Its place on the time axis.
        """
        if self._first is None:
            self._first = index
        features = self.model.encode(frame, side=self.settings.side, square=self.settings.square)
        tracked = self._find(features, index)
        # all numbers at once: a GPU is waited for each time that some are read
        presence, iou = torch.stack((tracked.presence, tracked.iou)).tolist()
        scores = {label: ObjectScore(*both) for label, *both in zip(self.labels, presence, iou)}
        self._remember(features, index, tracked, presence)
        return FrameResult(index, self._paint(features, tracked, presence), scores)

    def add_prior(self, label: int, memory: Memory) -> None:
        """Let the frames from here on see one more memory of a label, as if it had been in the prior.

        Raises
        ------
        PriorError
            If the run does not follow that label.
        """
        if label not in self._banks:
            known = ", ".join(map(str, self.labels))
            raise PriorError(
                f"This run follows the labels {known} and not {label}; track anew to add an object."
            )
        self._banks[label].add_prior(self._placed(memory))

    def reset_recent(self) -> None:
        """Forget the running video; the next frame sees the prior alone."""
        for bank in self._banks.values():
            bank.reset()

    def restore(self, first: int, memories: Mapping[int, FrameMemories], order: Sequence[int]) -> None:
        """Continue an interrupted run; what `add_prior` added is forgotten and has to be added again.

        Parameters
        ----------
        first : int
            The run's first frame.
        memories : mapping of frame to mapping of label to Memory
            What was remembered of the frames before.
        order : sequence of int
            Those frames in the order in which they were tracked.
        """
        self.reset_recent()
        for bank in self._banks.values():
            bank.forget_added()
        self._first = first
        for index in order:
            for label, memory in memories.get(index, {}).items():
                if label not in self._banks:
                    raise SettingsError(
                        f"A stored memory has the label {label}, which the prior lacks; start the run again."
                    )
                self._banks[label].store(index, self._placed(memory))

    @property
    def remembered(self) -> set[int]:
        """The frames whose memories the next step may look at."""
        return {index for bank in self._banks.values() for index in bank.indices}

    # ---- the steps of `step`

    def _find(self, features: ImageFeatures, index: int) -> Tracked:
        """Find all labels; those with equally many memories go through the model together."""
        assert self._first is not None
        assert features.high_res_features is not None
        steps = abs(index - self._first)
        recalls = {label: bank.recall(index, steps) for label, bank in self._banks.items()}
        order = sorted(self.labels, key=lambda label: str(recalls[label].layout))
        started = self.model.before_recall(features.embedding)
        found: dict[int, Tracked] = {}
        for _, group in groupby(order, key=lambda label: recalls[label].layout):
            for together in _few(list(group)):
                parts = [recalls[label] for label in together]
                recalled = self.model.recall(
                    features.embedding,
                    [torch.stack(memories) for memories in zip(*(part.spatial for part in parts))],
                    self._there(torch.tensor([part.slots for part in parts])),
                    torch.stack([part.pointers for part in parts]),
                    self._there(torch.tensor([part.times for part in parts], dtype=torch.float32)),
                    started,
                )
                tracked = self.model.track(recalled, features.high_res_features, features.transform.input_hw)
                found |= {label: Tracked(*(part[i] for part in tracked)) for i, label in enumerate(together)}
        return Tracked(*(torch.stack(parts) for parts in zip(*(found[label] for label in self.labels))))

    def _there(self, values: Tensor) -> Tensor:
        """Return values on the model's device, without waiting until a GPU has done what it has to do."""
        if self.model.device.type == "cuda":
            values = values.pin_memory()
        return values.to(self.model.device, non_blocking=True)

    def _remember(
        self, features: ImageFeatures, index: int, tracked: Tracked, presence: Sequence[float]
    ) -> None:
        self.last_memories = {}
        keep = [i for i, there in enumerate(presence) if self.settings.keep_lost or there > 0]
        if not (self.settings.store_memories and keep and max(self.settings.recent, self.settings.pointers)):
            return
        for rows in _few(keep):
            # not `logits[rows]`: the list would be copied to a GPU, which is waited for
            logits, scores = (
                torch.stack([part[i] for i in rows]) for part in (tracked.logits, tracked.presence)
            )
            spatial = self.model.encode_memory(features.embedding, logits[:, None], scores, binary=False)
            for made, i in zip(spatial, rows):
                # a copy: memories of one batch would hold it in memory until the last of them is forgotten
                memory = self._placed(Memory(made.clone() if len(rows) > 1 else made, tracked.pointers[i]))
                self.last_memories[self.labels[i]] = memory
                self._banks[self.labels[i]].store(index, memory)

    def _paint(
        self, features: ImageFeatures, tracked: Tracked, presence: Sequence[float]
    ) -> npt.NDArray[np.uint16]:
        """Return the labels at the frame's size; where objects overlap, the higher logit wins."""
        height, width = features.transform.image_hw
        highest = torch.zeros(height, width, device=self.model.device)
        labels = torch.zeros(height, width, dtype=torch.int32, device=self.model.device)
        for label, logits, there in zip(self.labels, tracked.logits, presence):
            if there <= 0:
                continue
            full = features.transform.to_image(logits[None])[0]
            wins = full > highest
            labels = torch.where(wins, label, labels)
            highest = torch.where(wins, full, highest)
        # half as much to copy from a GPU, in a type of two bytes that every torch has
        return labels.to(torch.int16).cpu().numpy().view(np.uint16)

    def _placed(self, memory: Memory) -> Memory:
        """Return a memory on the model's device, in its type."""
        return Memory(self._to(memory.spatial, self.settings.round_memories), self._to(memory.pointer, False))

    def _to(self, values: Tensor, rounded: bool) -> Tensor:
        if rounded:
            values = values.to(torch.bfloat16)
        return values.to(self.model.device, self.model.dtype)


def _few(items: list[int]) -> list[list[int]]:
    return [items[i : i + TOGETHER] for i in range(0, len(items), TOGETHER)]
