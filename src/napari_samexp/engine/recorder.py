"""The model, its encoded images and the session's prior: what requests outside of tracking need."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from napari_samexp.engine.encoded_images import EncodedImages, Rgb, pixels_of
from napari_samexp.engine.journal import PriorJournal, keys_of, state_of
from napari_samexp.engine.messages.base import ArrayRef
from napari_samexp.engine.messages.model import LoadModel, ModelInfo
from napari_samexp.engine.messages.prompts import (
    MAX_CHOICES,
    ChangeRecording,
    ChosenMask,
    LoadPrior,
    Preview,
    Previewed,
    PriorState,
    Record,
    RememberFrame,
    RemoveRecording,
)
from napari_samexp.engine.sharing import read_shared, write_shared
from napari_samexp.errors import PriorError, PriorMismatch, SamexpError, SettingsError, sam1_has_no_memory
from napari_samexp.sam.features import ImageFeatures, MaskPrediction, Memory
from napari_samexp.sam.sam1 import Sam1
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.sam.weights.download import Progress
from napari_samexp.sam.weights.loading import load_model
from napari_samexp.tracking.prior import PriorMemory
from napari_samexp.tracking.recording import Recording, image_hash, record, record_mask

__all__ = ["Recorder"]

Notify = Callable[[str], None]  # called with what has started: "encoding", "predicting" or "recording"


@dataclass(slots=True)
class Recorder:
    """One model, its last encoded images, and the prior.

    Parameters
    ----------
    journal : PriorJournal
    encoded : EncodedImages
    """

    journal: PriorJournal
    encoded: EncodedImages
    model: Sam1 | Sam2 | None = None

    # ---- the model

    def load(self, request: LoadModel, progress: Progress) -> ModelInfo:
        """Replace the model; the one in use stays if that fails."""
        model = load_model(
            request.name,
            device=request.device,
            dtype=request.dtype,
            graphs=request.graphs,
            progress=progress,
        )
        self.model = model
        self.free()
        return ModelInfo(
            name=model.variant.name,
            family=model.variant.family,
            weights=model.weights,
            device=str(model.device),
            dtype=model.compute_dtype,
            image_size=model.variant.image_size,
            side_multiple=model.variant.side_multiple,
            has_memory=isinstance(model, Sam2),
            parameters=sum(p.numel() for p in model.parameters()),
            variant=model.variant if isinstance(model, Sam2) else None,
        )

    def free(self) -> None:
        """Free cached features and unused GPU memory."""
        self.encoded.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def require_model(self) -> Sam1 | Sam2:
        """Return the model; `SettingsError` if none is loaded."""
        if self.model is None:
            raise SettingsError("No model is loaded; choose one first.")
        return self.model

    def require_memory(self) -> Sam2:
        """Return the model; `SettingsError` if none is loaded, `PriorError` if it has no memory."""
        model = self.require_model()
        if not isinstance(model, Sam2):
            raise sam1_has_no_memory(model.variant.name)
        return model

    # ---- prompts

    def preview(self, number: int, request: Preview, notify: Notify) -> Iterator[ChosenMask | Previewed]:
        """Predict masks into the shared block of the request; the chosen mask comes first."""
        model = self.require_model()
        features = self._features_of(model, request, notify)
        notify("predicting")
        began = time.perf_counter()
        prediction = model.segment(features, request.prompt)
        seconds = time.perf_counter() - began
        count = min(len(prediction.logits), MAX_CHOICES)
        chosen = prediction.best if request.mask_index is None else min(request.mask_index, count - 1)
        reply = Previewed(
            number,
            hw=prediction.transform.image_hw,
            iou=tuple(float(iou) for iou in prediction.iou[:count]),
            presence=prediction.presence,
            best=prediction.best,
            seconds=seconds,
        )
        _write_masks(request.into, prediction, [chosen])
        yield ChosenMask(number, chosen, reply)
        _write_masks(request.into, prediction, [index for index in range(count) if index != chosen])
        yield reply

    def record(self, number: int, request: Record, notify: Notify) -> None:
        """Add a prompt on a shared image to the prior."""
        model = self.require_memory()
        notify("recording")
        features = self._features_of(model, request, notify)
        rgb = pixels_of(request.image)
        key = self.encoded.hash_of(request.image, rgb)
        self._keep(number, _recording(model, request, rgb, key, features, request.image.name), rgb)

    def remember(
        self,
        number: int,
        request: RememberFrame,
        frame: Rgb,
        add_to_run: Callable[[Recording, Memory], object],
        notify: Notify,
    ) -> None:
        """Add a corrected frame to the run, and then to the prior."""
        model = self.require_memory()
        notify("recording")
        key = image_hash(frame)
        features = self.encoded.of_pixels(
            model, frame, key, request.side, request.square, lambda: notify("encoding")
        )
        made = _recording(model, request, frame, key, features, f"{request.video.name}@{request.index}")
        self.journal.prior.with_recording(*made)  # may refuse, before the run is changed
        add_to_run(*made)
        self._keep(number, made, frame)

    def _features_of(self, model: Sam1 | Sam2, request: Preview | Record, notify: Notify) -> ImageFeatures:
        return self.encoded.of_image(
            model, request.image, request.side, request.square, lambda: notify("encoding")
        )

    def _keep(self, number: int, made: tuple[Recording, Memory], rgb: Rgb) -> None:
        prior = self.journal.prior.with_recording(*made)
        # first, so that no kill leaves a recording without its image
        self.journal.keep_image(made[0].image_hash, rgb)
        self.journal.commit(prior, number)

    # ---- the prior

    @property
    def state(self) -> PriorState:
        """The prior as it is shown."""
        # without recordings, there is no need to hash gigabytes of weights
        known = self.model is not None and self.journal.prior.recordings
        return state_of(self.journal, self.model.weights_sha256 if known and self.model else None)

    def remove(self, number: int, request: RemoveRecording) -> None:
        """Remove a recording."""
        self.journal.commit(self.journal.prior.without(self._place(request.key)), number)

    def change(self, number: int, request: ChangeRecording) -> None:
        """Give a recording another label or name, or switch it on or off."""
        prior = self.journal.prior.with_change(
            self._place(request.key), label=request.label, name=request.name, enabled=request.enabled
        )
        self.journal.commit(prior, number)

    def load_prior(self, number: int, request: LoadPrior) -> None:
        """Take the prior from a file."""
        loaded = PriorMemory.load(request.path)
        if isinstance(self.model, Sam2) and not _fits(loaded, self.model):
            loaded = loaded.encoded_again(self.model, self.journal.images)
        prior = self.journal.prior if request.append else PriorMemory()
        for recording, memory in zip(loaded.recordings, loaded.memories):
            prior = prior.with_recording(recording, memory)
        self.journal.commit(prior, number)

    def fit_prior(self, number: int) -> SamexpError | None:
        """Encode the recordings again if another model made them; return why that is not possible, if so."""
        prior = self.journal.prior
        if self.model is None or not prior.recordings or _fits(prior, self.model):
            return None
        try:
            again = prior.encoded_again(self.require_memory(), self.journal.images)
            self.journal.commit(again, number)
        except PriorError as error:
            made_by = prior.recordings[0].model
            why = (
                str(error)
                if not isinstance(error, PriorMismatch)
                else "not all recorded images are available."
            )
            return PriorError(
                f"The recordings were made with {made_by} and cannot be used with this model: {why}",
                code=error.code,
            )
        return None

    def _place(self, key: str) -> int:
        keys = keys_of(self.journal.prior)
        if key not in keys:
            raise PriorError("That recording is no longer there.")
        return keys.index(key)


def _fits(prior: PriorMemory, model: Sam1 | Sam2) -> bool:
    return all(recording.weights == model.weights_sha256 for recording in prior.recordings)


def _recording(
    model: Sam2, request: Record | RememberFrame, rgb: Rgb, key: str, features: ImageFeatures, image_name: str
) -> tuple[Recording, Memory]:
    """Return a recording of the request's prompt or painted mask; `key` is the image's hash."""
    options: dict[str, Any] = {
        "label": request.label,
        "name": request.name,
        "image_name": image_name,
        "side": request.side,
        "square": request.square,
        "known_hash": key,
    }
    if isinstance(request, RememberFrame) and request.mask is not None:
        return record_mask(model, rgb, features, read_shared(request.mask).astype(np.bool_), **options)
    prediction = model.segment(features, request.prompt)
    return record(model, rgb, features, request.prompt, prediction, mask_index=request.mask_index, **options)


def _write_masks(into: ArrayRef | None, prediction: MaskPrediction, indices: Sequence[int]) -> None:
    """Write mask choices at the image's size into shared memory as bits, each at its own row."""
    # one at a time: four sets of float logits of a large image would take gigabytes
    for index in indices:
        bits = np.packbits(prediction.mask(index))
        if into is not None:
            write_shared(into, bits, index * bits.size)
