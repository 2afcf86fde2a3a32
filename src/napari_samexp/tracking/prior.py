"""Priors: recordings and their memories, all that a run knows of its objects before it starts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy.typing as npt

from napari_samexp.errors import PriorError, PriorMismatch, sam1_has_no_memory
from napari_samexp.io.atomic import write_atomic
from napari_samexp.sam.features import Memory
from napari_samexp.sam.sam1 import Sam1
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.tracking.prior_file import read_prior, to_bytes
from napari_samexp.tracking.recording import Recording, record_again

__all__ = ["MAX_RECORDINGS", "PriorMemory"]

MAX_RECORDINGS = 32  # a label


@dataclass(frozen=True, slots=True, eq=False)
class PriorMemory:
    """Recordings with their memories, in the order in which they were recorded. Immutable.

    Parameters
    ----------
    recordings : tuple of Recording
    memories : tuple of Memory
        One for each recording.
    """

    recordings: tuple[Recording, ...] = ()
    memories: tuple[Memory, ...] = ()

    def with_recording(self, recording: Recording, memory: Memory) -> PriorMemory:
        """Return the prior with one more recording.

        Raises
        ------
        PriorError
            If the label has 32 recordings already.
        PriorMismatch
            If the recording was made with another model.
        """
        _require_room(recording.label, self.recordings)
        if self.recordings and self.recordings[0].weights != recording.weights:
            raise PriorMismatch(
                f"The prior was recorded with {self.recordings[0].model} and the new recording with {recording.model} "
                "(other weights); record with the same model or begin a new prior."
            )
        return PriorMemory((*self.recordings, recording), (*self.memories, memory))

    def without(self, index: int) -> PriorMemory:
        """Return the prior without recording number `index`; `PriorError` if there is none."""
        self._require_index(index)
        return PriorMemory(
            (*self.recordings[:index], *self.recordings[index + 1 :]),
            (*self.memories[:index], *self.memories[index + 1 :]),
        )

    def with_change(
        self, index: int, *, label: int | None = None, name: str | None = None, enabled: bool | None = None
    ) -> PriorMemory:
        """Return the prior with recording number `index` relabelled, renamed, enabled or disabled.

        Raises
        ------
        PriorError
            If there is no such recording, or the label is out of range or has 32 recordings already.
        """
        self._require_index(index)
        old = self.recordings[index]
        changed = replace(
            old,
            label=old.label if label is None else label,
            name=old.name if name is None else name,
            enabled=old.enabled if enabled is None else enabled,
        )
        before, after = self.recordings[:index], self.recordings[index + 1 :]
        _require_room(changed.label, (*before, *after))
        return PriorMemory((*before, changed, *after), self.memories)

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels of enabled recordings, ascending."""
        return tuple(sorted({recording.label for recording in self.recordings if recording.enabled}))

    @property
    def names(self) -> dict[int, str]:
        """The name of each label: that of its latest recording with a name."""
        names = dict.fromkeys(self.labels, "")
        for recording in self.recordings:
            if recording.enabled:
                names[recording.label] = recording.name or names[recording.label]
        return names

    def of_label(self, label: int) -> list[Memory]:
        """Return the memories of one label's enabled recordings, in the order of recording."""
        pairs = zip(self.recordings, self.memories)
        return [memory for entry, memory in pairs if entry.enabled and entry.label == label]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over labels and memories: equal for priors that track equally."""
        digest = hashlib.sha256()
        for recording, memory in zip(self.recordings, self.memories):
            if not recording.enabled:
                continue
            digest.update(str(recording.label).encode())
            for part in (memory.spatial, memory.pointer):
                digest.update(part.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def require(self, model: Sam1 | Sam2) -> None:
        """Raise unless the prior can be used with `model`.

        Raises
        ------
        PriorError
            If no recording is enabled or the model has no memory.
        PriorMismatch
            If another model made the memories.
        """
        if isinstance(model, Sam1):
            raise sam1_has_no_memory(model.variant.name)
        if not self.recordings:
            raise PriorError("The prior holds no recording; record at least one prompt first.")
        if not self.labels:
            raise PriorError("Every recording of the prior is switched off; switch at least one on.")
        first = self.recordings[0]
        if first.weights != model.weights_sha256:
            raise PriorMismatch(
                f"The prior was recorded with {first.model} (weights {first.weights[:12]}), but the model is "
                f"{model.variant.name} (weights {model.weights_sha256[:12]}); choose that model, or give the recorded "
                "images so that the prompts can be encoded again."
            )
        if not all(model.takes(memory) for memory in self.memories):
            raise PriorError(
                f"The prior's memories do not have the shapes of {first.model}'s, so they are damaged; record again."
            )

    def encoded_again(self, model: Sam2, images: Mapping[str, npt.ArrayLike]) -> PriorMemory:
        """Return the same prompts with the memories of another model.

        Parameters
        ----------
        model : Sam2
        images : mapping of str to array
            The recorded images, by `image_hash` or by image name.

        Raises
        ------
        PriorMismatch
            If an image is missing or is not the recorded one.
        """
        again = PriorMemory()
        for recording in self.recordings:
            again = again.with_recording(*record_again(model, recording, images))
        return again

    def save(self, path: str | Path) -> None:
        """Write the prior to one safetensors file; an existing one is replaced only when the new one is complete.

        A symbolic link at `path` is replaced, not followed.

        Raises
        ------
        PriorError
            If nothing is recorded or the file cannot be written.
        """
        content = self.to_bytes()
        try:
            write_atomic(Path(path), content)
        except OSError as error:
            raise PriorError(
                f"The prior cannot be written to {path} ({error.strerror or error}); choose another place."
            ) from error

    def to_bytes(self) -> bytes:
        """Return the content of the prior's file; `PriorError` if nothing is recorded."""
        if not self.recordings:
            raise PriorError(
                "The prior holds no recording, so there is nothing to save; record at least one prompt first."
            )
        return to_bytes(list(zip(self.recordings, self.memories)))

    @classmethod
    def load(cls, path: str | Path) -> PriorMemory:
        """Read a prior file. Nothing in it is executed, and no other file is opened.

        Raises
        ------
        PriorError
            If the file is missing, damaged or not a prior.
        PriorMismatch
            If its recordings were made with more than one model.
        """
        path = Path(path)
        pairs = read_prior(path)
        if not pairs:
            raise PriorError(f"{path} is a prior without recordings; record at least one prompt first.")
        label, count = Counter(recording.label for recording, _ in pairs).most_common(1)[0]
        if count > MAX_RECORDINGS:
            raise PriorError(
                f"{path} has {count} recordings of label {label}, more than {MAX_RECORDINGS}; record it again."
            )
        if len({recording.weights for recording, _ in pairs}) > 1:
            raise PriorMismatch(f"{path} holds recordings of several models; record them again with one.")
        return cls(tuple(recording for recording, _ in pairs), tuple(memory for _, memory in pairs))

    def _require_index(self, index: int) -> None:
        if not 0 <= index < len(self.recordings):
            raise PriorError(
                f"There is no recording {index}; the prior has {len(self.recordings)}, counted from 0."
            )


def _require_room(label: int, others: tuple[Recording, ...]) -> None:
    if sum(other.label == label for other in others) >= MAX_RECORDINGS:
        raise PriorError(
            f"Label {label} has {MAX_RECORDINGS} recordings already, which is the most; remove one first."
        )
