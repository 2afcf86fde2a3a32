"""The model at work on images, and the session's prior: what requests outside of tracking need."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from napari_samexp.engine.encoded_images import EncodedImages, Rgb, pixels_of
from napari_samexp.engine.journal import PriorJournal, keys_of, state_of
from napari_samexp.engine.messages import (
    MAX_CHOICES,
    ChangeRecording,
    LoadModel,
    LoadPrior,
    ModelInfo,
    Preview,
    Previewed,
    PriorState,
    Record,
    RememberFrame,
    RemoveRecording,
)
from napari_samexp.engine.sharing import read_shared, write_shared
from napari_samexp.errors import PriorError, PriorMismatch, SettingsError
from napari_samexp.sam.features import MaskPrediction, Memory
from napari_samexp.sam.models import Sam1, Sam2
from napari_samexp.sam.weights.download import Progress
from napari_samexp.sam.weights.loading import load_model
from napari_samexp.tracking.prior import PriorMemory
from napari_samexp.tracking.recording import Recording, record, record_mask

__all__ = ["Recorder"]

Say = Callable[[str], None]  # what has begun: "encoding", "predicting" or "recording"


@dataclass(slots=True)
class Recorder:
    """One model, the images that it encoded last, and the prior.

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
        """Take another model in the place of the one in use, which stays if that fails."""
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
        """Give back what memory is not in use."""
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
            raise PriorError(
                f"{model.variant.name} is a SAM 1 model, which has no memory; choose a SAM 2, SAM 2.1 or EdgeTAM model."
            )
        return model

    # ---- prompts

    def preview(self, number: int, request: Preview, say: Say) -> Previewed:
        """Predict masks and put them where the viewer's process reads them."""
        model = self.require_model()
        features = self.encoded.of_image(
            model, request.image, request.side, request.square, lambda: say("encoding")
        )
        say("predicting")
        began = time.perf_counter()
        prediction = model.segment(features, request.prompt)
        seconds = time.perf_counter() - began
        bits = _packed(prediction)
        if request.into is not None:
            write_shared(request.into, bits)
        return Previewed(
            number,
            hw=prediction.transform.image_hw,
            iou=tuple(float(iou) for iou in prediction.iou[: len(bits)]),
            presence=prediction.presence,
            best=prediction.best,
            seconds=seconds,
        )

    def record(self, number: int, request: Record, say: Say) -> None:
        """Add a prompt on a shared image to the prior."""
        model = self.require_memory()
        say("recording")
        features = self.encoded.of_image(
            model, request.image, request.side, request.square, lambda: say("encoding")
        )
        rgb = pixels_of(request.image)
        made = record(
            model,
            rgb,
            features,
            request.prompt,
            model.segment(features, request.prompt),
            label=request.label,
            name=request.name,
            image_name=request.image.name,
            mask_index=request.mask_index,
            side=request.side,
            square=request.square,
        )
        self._keep(number, made, rgb)

    def remember(
        self,
        number: int,
        request: RememberFrame,
        frame: Rgb,
        add_to_run: Callable[[Recording, Memory], object],
        say: Say,
    ) -> None:
        """Add what a person corrected in a frame to the run, and then to the prior."""
        model = self.require_memory()
        say("recording")
        made = self._corrected(model, request, frame, say)
        self.journal.prior.with_recording(*made)  # refuses before the run is changed
        add_to_run(*made)
        self._keep(number, made, frame)

    def _corrected(
        self, model: Sam2, request: RememberFrame, frame: Rgb, say: Say
    ) -> tuple[Recording, Memory]:
        features = self.encoded.of_pixels(model, frame, request.side, request.square, lambda: say("encoding"))
        name = f"{request.video.name}@{request.index}"
        if request.mask is not None:
            return record_mask(
                model,
                frame,
                features,
                read_shared(request.mask).astype(np.bool_),
                label=request.label,
                name=request.name,
                image_name=name,
                side=request.side,
                square=request.square,
            )
        return record(
            model,
            frame,
            features,
            request.prompt,
            model.segment(features, request.prompt),
            label=request.label,
            name=request.name,
            image_name=name,
            mask_index=request.mask_index,
            side=request.side,
            square=request.square,
        )

    def _keep(self, number: int, made: tuple[Recording, Memory], rgb: Rgb) -> None:
        prior = self.journal.prior.with_recording(*made)
        # before it, so that no kill leaves a recording whose image is not at hand
        self.journal.keep_image(made[0].image_hash, rgb)
        self.journal.commit(prior, number)

    # ---- the prior

    @property
    def state(self) -> PriorState:
        """The prior as people see it."""
        # without recordings, nobody needs the hash of gigabytes
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

    def fit_prior(self, number: int) -> str:
        """Encode the recordings again if another model made them; return why that cannot be, if so."""
        prior = self.journal.prior
        if self.model is None or not prior.recordings or _fits(prior, self.model):
            return ""
        try:
            again = prior.encoded_again(self.require_memory(), self.journal.images)
            self.journal.commit(again, number)
        except PriorError as error:
            made_by = prior.recordings[0].model
            why = (
                str(error) if not isinstance(error, PriorMismatch) else "not all recorded images are at hand."
            )
            return f"The recordings were made with {made_by} and cannot be used with this model: {why}"
        return ""

    def _place(self, key: str) -> int:
        keys = keys_of(self.journal.prior)
        if key not in keys:
            raise PriorError("That recording is no longer there.")
        return keys.index(key)


def _fits(prior: PriorMemory, model: Sam1 | Sam2) -> bool:
    return all(recording.weights == model.weights_sha256 for recording in prior.recordings)


def _packed(prediction: MaskPrediction) -> npt.NDArray[np.uint8]:
    """Return all mask choices at the image's size as bits, one row each."""
    # one at a time: four sets of float logits of a large image would take gigabytes
    rows = [np.packbits(prediction.mask(index)) for index in range(min(len(prediction.logits), MAX_CHOICES))]
    return np.stack(rows)
