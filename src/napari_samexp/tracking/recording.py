"""Recordings: a prompt or a painted mask on one image, and the memory that a model makes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_samexp._text import plain
from napari_samexp.errors import PriorError, PriorMismatch, sam1_has_no_memory
from napari_samexp.images import to_rgb8
from napari_samexp.sam.features import ImageFeatures, MaskPrediction, Memory
from napari_samexp.sam.sam1 import Sam1
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.types import Prompt

__all__ = ["MAX_LABEL", "Recording", "image_hash", "record", "record_again", "record_mask"]

MAX_LABEL = 65_535
THUMBNAIL = 96  # pixels, the longer side


def image_hash(image: npt.ArrayLike) -> str:
    """Return the SHA-256 of an image's 8-bit RGB pixels and size, as hexadecimal text."""
    rgb = to_rgb8(image)
    return hashlib.sha256(repr(rgb.shape).encode() + rgb.tobytes()).hexdigest()


def _no_thumbnail() -> npt.NDArray[np.uint8]:
    return np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A prompt on one image, with everything needed to compute its memory again except the image itself.

    Parameters
    ----------
    label : int
        The object, 1 to 65535; recordings with the same label show the same object.
    prompt : Prompt
        Empty if a mask was painted instead.
    image_name, image_hash : str
        Where the image came from, and the `image_hash` of its pixels.
    image_hw : (int, int)
        Height and width of the image in pixels.
    model, weights : str
        Name of the model variant, and SHA-256 of the weights file.
    side : int
        Side of the model's input in pixels.
    square : bool
        Whether the image was stretched to a square.
    mask_index : int or None
        Which of the predicted masks was recorded; None for the one the model rates best.
    name : str
        What people call the object.
    iou, presence : float
        Predicted IoU of the recorded mask, and object score logit.
    thumbnail : array, shape (h, w, 3), uint8
        The image, at most 96 pixels on its longer side.
    enabled : bool
        Whether runs use the recording; a disabled one is still saved.
    mask : array, shape (H, W), bool, or None
        The painted mask, if there is one.

    Raises
    ------
    PriorError
        If the label is out of range.
    """

    label: int
    prompt: Prompt
    image_name: str
    image_hash: str
    image_hw: tuple[int, int]
    model: str
    weights: str
    side: int
    square: bool
    mask_index: int | None = None
    name: str = ""
    iou: float = 0.0
    presence: float = 0.0
    thumbnail: npt.NDArray[np.uint8] = field(default_factory=_no_thumbnail)
    enabled: bool = True
    mask: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        is_number = isinstance(self.label, int | np.integer) and not isinstance(self.label, bool)
        if not (is_number and 1 <= self.label <= MAX_LABEL):
            raise PriorError(
                f"The label is {plain(self.label)}; expected a whole number from 1 to {MAX_LABEL}."
            )
        for key in ("label", "side", "mask_index"):  # JSON takes no numpy integers
            if isinstance(value := getattr(self, key), np.integer):
                object.__setattr__(self, key, int(value))


def record(
    model: Sam1 | Sam2,
    image: npt.ArrayLike,
    features: ImageFeatures,
    prompt: Prompt,
    prediction: MaskPrediction,
    *,
    label: int = 1,
    name: str = "",
    image_name: str = "",
    mask_index: int | None = None,
    side: int | None = None,
    square: bool = True,
    known_hash: str = "",
) -> tuple[Recording, Memory]:
    """Return a recording of a prediction and its memory, ready for `PriorMemory.with_recording`.

    Parameters
    ----------
    model : Sam2
        A SAM 1 model is refused.
    image : array
        What `features` were computed from; (H, W, 3) uint8 RGB, or any image that `Sam2.encode` takes.
    features : ImageFeatures
        What `Sam2.encode` returned for the image with `side` and `square`.
    prompt, prediction : Prompt, MaskPrediction
        The prompt, and what `Sam2.segment` returned for it.
    label, name : int, str
        The object, 1 to 65535, and what people call it.
    image_name : str
        Where the image came from.
    mask_index : int, optional
        Which of the predicted masks to record; by default the one with the highest predicted IoU.
    side : int, optional
        Side of the model's input in pixels; by default the model's own.
    square : bool
        Whether the image was stretched to a square.

    `known_hash` is the image's `image_hash`, if it is already computed.

    Raises
    ------
    PriorError
        If the model has no memory or the label is out of range.
    SettingsError
        If there is no such mask.
    """
    if isinstance(model, Sam1):
        raise sam1_has_no_memory(model.variant.name)
    chosen = prediction.require_choice(mask_index)
    memory = model.remember(features, prediction, mask_index)
    rgb = to_rgb8(image)
    recording = Recording(
        label=label,
        name=name,
        prompt=prompt,
        mask_index=mask_index,
        image_name=image_name,
        image_hash=known_hash or image_hash(rgb),
        image_hw=features.transform.image_hw,
        thumbnail=_thumbnail(rgb),
        model=model.variant.name,
        weights=model.weights_sha256,
        side=side or model.variant.image_size,
        square=square,
        iou=float(prediction.iou[chosen]),
        presence=float(prediction.presence or 0.0),
    )
    return recording, memory


def record_mask(
    model: Sam2,
    image: npt.ArrayLike,
    features: ImageFeatures,
    mask: npt.NDArray[np.bool_],
    *,
    label: int = 1,
    name: str = "",
    image_name: str = "",
    side: int | None = None,
    square: bool = True,
    known_hash: str = "",
) -> tuple[Recording, Memory]:
    """Return a recording of a painted mask and its memory; see `record`.

    Parameters
    ----------
    mask : array, shape (H, W), bool
        The object in the image.

    Raises
    ------
    ImageError, PriorError
        If the mask has another size than the image, or is empty.
    """
    if not mask.any():
        raise PriorError("The painted mask is empty; paint the object before you record it.")
    recording, memory = record(
        model, image, features, Prompt(), model.from_mask(features, mask),
        label=label, name=name, image_name=image_name, side=side, square=square, known_hash=known_hash,
    )  # fmt: skip
    return replace(recording, mask=mask), memory


def record_again(
    model: Sam2, recording: Recording, images: Mapping[str, npt.ArrayLike]
) -> tuple[Recording, Memory]:
    """Return the same prompt or mask recorded with another model.

    Parameters
    ----------
    images : mapping of str to array
        The recorded images, by `image_hash` or by image name.

    Raises
    ------
    PriorMismatch
        If the image is missing or has other pixels than the recorded one.
    """
    image = _recorded_image(recording, images)
    # the side was chosen for the other model
    side = recording.side if recording.model == model.variant.name else model.variant.image_size
    features = model.encode(image, side=side, square=recording.square)
    if recording.mask is not None:
        again, memory = record_mask(
            model, image, features, recording.mask, label=recording.label, name=recording.name,
            image_name=recording.image_name, side=side, square=recording.square,
        )  # fmt: skip
    else:
        prediction = model.segment(features, recording.prompt)
        again, memory = record(
            model, image, features, recording.prompt, prediction, label=recording.label, name=recording.name,
            image_name=recording.image_name, mask_index=recording.mask_index, side=side, square=recording.square,
        )  # fmt: skip
    return replace(again, enabled=recording.enabled), memory


def _recorded_image(recording: Recording, images: Mapping[str, npt.ArrayLike]) -> npt.ArrayLike:
    image = images.get(recording.image_hash)
    if image is None:
        image = images.get(recording.image_name)
    if image is None:
        raise PriorMismatch(
            f"The recorded image {recording.image_name!r} is not among the given ones; give it as well."
        )
    if image_hash(image) != recording.image_hash:
        raise PriorMismatch(
            f"The image {recording.image_name!r} has other pixels than the recorded one; give the original."
        )
    return image


def _thumbnail(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    image = Image.fromarray(rgb)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(image)
