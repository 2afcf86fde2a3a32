"""The tracker: for each frame, attend to the prior and recent memories, predict each object, store its memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_samexp.errors import PriorError, SettingsError
from napari_samexp.sam.features import ImageFeatures, Memory, check_side
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.sam.sam2_base import Tracked
from napari_samexp.tracking.bank import MemoryBank
from napari_samexp.tracking.prior import PriorMemory
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import FrameResult, ObjectScore, VideoSource

__all__ = ["Tracker"]

FrameMemories = Mapping[int, Memory]  # by label
MAX_BATCH = 4  # labels in one batch, so that memory does not grow with their number


class Tracker:
    """Tracks the objects of a prior through the frames of a video.

    Parameters
    ----------
    model : Sam2
    prior : PriorMemory
        Recorded with this model.
    settings : TrackSettings, optional

    Attributes
    ----------
    labels : tuple of int
        The objects, ascending.
    recorded : dict of int to int
        The number of enabled recordings of each label.
    last_memories : dict of int to Memory
        What the last `step` stored, by label.

    Raises
    ------
    PriorError, PriorMismatch
        If the prior is empty or from another model, or the model has no memory.
    SettingsError
        If the model does not support the encode side.
    """

    def __init__(self, model: Sam2, prior: PriorMemory, settings: TrackSettings | None = None) -> None:
        prior.require(model)
        self.settings = settings or TrackSettings()
        check_side(model.variant, self.settings.side)
        self.model = model
        self.labels = prior.labels
        self.recorded = {label: len(prior.of_label(label)) for label in self.labels}
        self._banks = {
            label: MemoryBank([self._on_device(memory) for memory in prior.of_label(label)], self.settings)
            for label in self.labels
        }
        self._first: int | None = None
        self.last_memories: dict[int, Memory] = {}

    def run(self, video: VideoSource, frames: Iterable[int] | None = None) -> Iterator[FrameResult]:
        """Track frames and yield their results.

        Parameters
        ----------
        video : VideoSource
        frames : iterable of int, optional
            In the order in which they are tracked; by default all, in the settings' direction.
        """
        if frames is None:
            forward = range(len(video))
            frames = forward if self.settings.direction == "forward" else reversed(forward)
        for index in frames:
            yield self.step(video.frame(index), index)

    @torch.inference_mode()
    def step(self, frame: npt.ArrayLike, index: int) -> FrameResult:
        """Return the labels of one frame and store its memories.

        Parameters
        ----------
        frame : array
            (H, W, 3) uint8 RGB, or any image that `Sam2.encode` takes.
        index : int
            Its position on the time axis.
        """
        if self._first is None:
            self._first = index
        features = self.model.encode(frame, side=self.settings.side, square=self.settings.square)
        tracked = self._predict(features, index)
        # one transfer for all values: each one waits for the GPU
        presence, iou = torch.stack((tracked.presence, tracked.iou)).tolist()
        scores = {label: ObjectScore(*both) for label, *both in zip(self.labels, presence, iou)}
        self._store(features, index, tracked, presence)
        return FrameResult(index, self._paint(features, tracked, presence), scores)

    def add_prior(self, label: int, memory: Memory) -> None:
        """Add a memory of a label to the prior, for the frames tracked from now on.

        Raises
        ------
        PriorError
            If the run does not track that label.
        """
        if label not in self._banks:
            known = ", ".join(map(str, self.labels))
            raise PriorError(
                f"This run tracks the labels {known} and not {label}; start a new run to add an object."
            )
        self._banks[label].add_prior(self._on_device(memory))

    def reset_recent(self) -> None:
        """Remove all recent memories; the next frame attends to the prior only."""
        for bank in self._banks.values():
            bank.reset()

    def restore(self, first: int, memories: Mapping[int, FrameMemories], order: Sequence[int]) -> None:
        """Resume an interrupted run; what `add_prior` added is removed and has to be added again.

        Parameters
        ----------
        first : int
            The first frame of the run.
        memories : mapping of frame to mapping of label to Memory
            What was stored of earlier frames.
        order : sequence of int
            Those frames in the order in which they were tracked.

        Raises
        ------
        SettingsError
            If a memory has a label that the prior lacks.
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
                self._banks[label].store(index, self._on_device(memory))

    @property
    def remembered(self) -> set[int]:
        """The frames whose memories the next step may attend to."""
        return {index for bank in self._banks.values() for index in bank.indices}

    def _predict(self, features: ImageFeatures, index: int) -> Tracked:
        """Return the model's output for all labels; those with memories of equal shapes share a batch."""
        assert self._first is not None
        assert features.high_res_features is not None
        steps = abs(index - self._first)
        recalls = {label: bank.recall(index, steps) for label, bank in self._banks.items()}
        order = sorted(self.labels, key=lambda label: str(recalls[label].shapes))
        shared = self.model.before_recall(features.embedding)
        outputs: dict[int, Tracked] = {}
        for _, group in groupby(order, key=lambda label: recalls[label].shapes):
            for labels in _batches(list(group)):
                batch = [recalls[label] for label in labels]
                recalled = self.model.recall(
                    features.embedding,
                    [torch.stack(memories) for memories in zip(*(each.spatial for each in batch))],
                    self._to_device(torch.tensor([each.slots for each in batch])),
                    torch.stack([each.pointers for each in batch]),
                    self._to_device(torch.tensor([each.times for each in batch], dtype=torch.float32)),
                    shared,
                )
                tracked = self.model.track(recalled, features.high_res_features, features.transform.input_hw)
                outputs |= {label: Tracked(*(part[i] for part in tracked)) for i, label in enumerate(labels)}
        return Tracked(*(torch.stack(parts) for parts in zip(*(outputs[label] for label in self.labels))))

    def _store(
        self, features: ImageFeatures, index: int, tracked: Tracked, presence: Sequence[float]
    ) -> None:
        self.last_memories = {}
        rows = [i for i, score in enumerate(presence) if self.settings.keep_lost or score > 0]
        if not (self.settings.store_memories and rows and max(self.settings.recent, self.settings.pointers)):
            return
        for batch in _batches(rows):
            # not `logits[batch]`: copying the list to a GPU would wait for it
            logits, scores = (
                torch.stack([part[i] for i in batch]) for part in (tracked.logits, tracked.presence)
            )
            spatial = self.model.encode_memory(features.embedding, logits[:, None], scores, binary=False)
            for encoded, i in zip(spatial, batch):
                # a copy: a view would keep the memories of the whole batch alive
                encoded = encoded.clone() if len(batch) > 1 else encoded
                memory = self._on_device(Memory(encoded, tracked.pointers[i]))
                self.last_memories[self.labels[i]] = memory
                self._banks[self.labels[i]].store(index, memory)

    def _paint(
        self, features: ImageFeatures, tracked: Tracked, presence: Sequence[float]
    ) -> npt.NDArray[np.uint16]:
        """Return the labels (H, W) at the frame's size; where objects overlap, the higher logit wins."""
        height, width = features.transform.image_hw
        highest = torch.zeros(height, width, device=self.model.device)
        labels = torch.zeros(height, width, dtype=torch.int32, device=self.model.device)
        for label, logits, score in zip(self.labels, tracked.logits, presence):
            if score <= 0:
                continue
            full = features.transform.to_image(logits[None])[0]
            wins = full > highest
            labels = torch.where(wins, label, labels)
            highest = torch.where(wins, full, highest)
        # two bytes halve the transfer from a GPU; int16 because older torch has no uint16
        return labels.to(torch.int16).cpu().numpy().view(np.uint16)

    def _on_device(self, memory: Memory) -> Memory:
        """Return a memory on the model's device and in its dtype."""
        spatial = memory.spatial.to(torch.bfloat16) if self.settings.round_memories else memory.spatial
        return Memory(*(part.to(self.model.device, self.model.dtype) for part in (spatial, memory.pointer)))

    def _to_device(self, values: Tensor) -> Tensor:
        """Return values on the model's device, without waiting for a GPU's pending work."""
        if self.model.device.type == "cuda":
            values = values.pin_memory()
        return values.to(self.model.device, non_blocking=True)


def _batches(items: list[int]) -> list[list[int]]:
    return [items[i : i + MAX_BATCH] for i in range(0, len(items), MAX_BATCH)]
