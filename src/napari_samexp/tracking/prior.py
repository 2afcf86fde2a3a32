"""Recorded prompts and their memories: the only thing a run knows of its objects before it starts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors

from napari_samexp._text import clean_name, plain
from napari_samexp.errors import PriorError, PriorMismatch, PromptError
from napari_samexp.images import to_rgb8
from napari_samexp.io.atomic import write_atomic
from napari_samexp.sam.features import ImageFeatures, MaskPrediction, Memory
from napari_samexp.sam.models import Sam1, Sam2
from napari_samexp.types import Prompt

__all__ = ["MAX_LABEL", "MAX_RECORDINGS", "PriorMemory", "Recording", "image_hash", "record", "record_mask"]

MAX_RECORDINGS = 32  # a label
MAX_LABEL = 65_535
THUMBNAIL = 96  # pixels, the longer side
FORMAT = "napari_samexp_prior"
VERSION = 1
LARGEST_FILE = 4 * 2**30  # bytes; 32 recordings of the largest model stay far below


def image_hash(image: npt.ArrayLike) -> str:
    """Return the SHA-256 of an image's 8-bit RGB pixels and size, as hexadecimal text."""
    rgb = to_rgb8(image)
    return hashlib.sha256(repr(rgb.shape).encode() + rgb.tobytes()).hexdigest()


def _no_image() -> npt.NDArray[np.uint8]:
    return np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A prompt on one image, and all that is needed to make its memory again.

    Parameters
    ----------
    label : int
        The object that the prompt shows, 1 to 65535; recordings with equal labels show the same.
    name : str
        What people call the object.
    image_name, image_hash : str
        Where the image came from, and the `image_hash` of its pixels.
    image_hw : (int, int)
    thumbnail : array, shape (h, w, 3), uint8
    prompt : Prompt
    mask_index : int or None
        The mask choice that was recorded, None for the model's best.
    iou, presence : float
        What the model predicted of that mask.
    model, weights : str
        Name of the variant and SHA-256 of the weights file.
    side : int
    square : bool
        How the image was encoded.
    enabled : bool
        Whether runs use the recording; one that is switched off is kept and saved all the same.
    mask : array, shape (H, W), bool, or None
        The mask that a person painted, in the place of a prompt.
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
    thumbnail: npt.NDArray[np.uint8] = field(default_factory=_no_image)
    enabled: bool = True
    mask: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if (
            isinstance(self.label, bool)
            or not isinstance(self.label, int | np.integer)
            or not 1 <= self.label <= MAX_LABEL
        ):
            raise PriorError(
                f"The label is {plain(self.label)}; expected a whole number from 1 to {MAX_LABEL}."
            )
        for key in ("label", "side", "mask_index"):  # numpy's integers are no JSON
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
) -> tuple[Recording, Memory]:
    """Return a recording of a prediction and its memory, ready for `PriorMemory.with_recording`.

    Raises
    ------
    PriorError
        If the model has no memory or the label is out of range.
    SettingsError
        If there is no such mask choice.
    """
    chosen = prediction.require_choice(mask_index)
    memory = model.remember(features, prediction, mask_index)
    rgb = to_rgb8(image)
    recording = Recording(
        label=label,
        name=name,
        prompt=prompt,
        mask_index=mask_index,
        image_name=image_name,
        image_hash=image_hash(rgb),
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
) -> tuple[Recording, Memory]:
    """Return a recording of a painted (H, W) mask and its memory, as `record` does of a prompt.

    Raises
    ------
    ImageError, PriorError
        If the mask has another size than the image, or nothing in it.
    """
    if not mask.any():
        raise PriorError("The painted mask is empty; paint the object before it is remembered.")
    recording, memory = record(
        model, image, features, Prompt(), model.from_mask(features, mask),
        label=label, name=name, image_name=image_name, side=side, square=square,
    )  # fmt: skip
    return replace(recording, mask=mask), memory


def _thumbnail(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    image = Image.fromarray(rgb)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(image)


@dataclass(frozen=True, slots=True, eq=False)
class PriorMemory:
    """Recordings with their memories, in the order they were made; never changed, only replaced."""

    recordings: tuple[Recording, ...] = ()
    memories: tuple[Memory, ...] = ()

    def with_recording(self, recording: Recording, memory: Memory) -> PriorMemory:
        """Return the prior with one more recording.

        Raises
        ------
        PriorError
            If the label has as many recordings as are allowed.
        PriorMismatch
            If the recording was made with another model.
        """
        if sum(other.label == recording.label for other in self.recordings) >= MAX_RECORDINGS:
            raise PriorError(
                f"Label {recording.label} has {MAX_RECORDINGS} recordings already, which is the most; remove one first."
            )
        if self.recordings and self.recordings[0].weights != recording.weights:
            raise PriorMismatch(
                f"The prior was recorded with {self.recordings[0].model} and the new recording with {recording.model} "
                "(other weights); record with the same model or begin a new prior."
            )
        return PriorMemory((*self.recordings, recording), (*self.memories, memory))

    def without(self, index: int) -> PriorMemory:
        """Return the prior without recording number `index`."""
        if not 0 <= index < len(self.recordings):
            raise PriorError(
                f"There is no recording {index}; the prior has {len(self.recordings)}, counted from 0."
            )
        return PriorMemory(
            (*self.recordings[:index], *self.recordings[index + 1 :]),
            (*self.memories[:index], *self.memories[index + 1 :]),
        )

    def with_change(
        self, index: int, *, label: int | None = None, name: str | None = None, enabled: bool | None = None
    ) -> PriorMemory:
        """Return the prior with recording number `index` given another label or name, or switched on or off."""
        if not 0 <= index < len(self.recordings):
            raise PriorError(
                f"There is no recording {index}; the prior has {len(self.recordings)}, counted from 0."
            )
        old = self.recordings[index]
        changed = replace(
            old,
            label=old.label if label is None else label,
            name=old.name if name is None else name,
            enabled=old.enabled if enabled is None else enabled,
        )
        if (
            sum(other.label == changed.label for i, other in enumerate(self.recordings) if i != index)
            >= MAX_RECORDINGS
        ):
            raise PriorError(
                f"Label {changed.label} has {MAX_RECORDINGS} recordings already, which is the most."
            )
        return PriorMemory((*self.recordings[:index], changed, *self.recordings[index + 1 :]), self.memories)

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels that have recordings which are switched on, ascending."""
        return tuple(sorted({recording.label for recording in self.recordings if recording.enabled}))

    @property
    def names(self) -> dict[int, str]:
        """What each label is called: the last name that was given to it."""
        names = dict.fromkeys(self.labels, "")
        for recording in self.recordings:
            if recording.enabled:
                names[recording.label] = recording.name or names[recording.label]
        return names

    def of_label(self, label: int) -> list[Memory]:
        """Return the memories of one label's recordings that are switched on, in the order of recording."""
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
            If nothing is recorded or the model has no memory.
        PriorMismatch
            If another model made the memories.
        """
        if isinstance(model, Sam1):
            raise PriorError(
                f"{model.variant.name} is a SAM 1 model, which has no memory; choose a SAM 2, SAM 2.1 or EdgeTAM model."
            )
        if not self.recordings:
            raise PriorError("The prior holds no recording; record at least one prompt first.")
        if not self.labels:
            raise PriorError("Every recording of the prior is switched off; switch at least one on.")
        made_by = self.recordings[0]
        if made_by.weights != model.weights_sha256:
            raise PriorMismatch(
                f"The prior was recorded with {made_by.model} (weights {made_by.weights[:12]}), but the model is "
                f"{model.variant.name} (weights {model.weights_sha256[:12]}); choose that model, or give the recorded "
                "images so that the prompts can be encoded again."
            )
        if not all(model.takes(memory) for memory in self.memories):
            raise PriorError(
                f"The prior's memories have not the sizes of {made_by.model}, so they are damaged; record again."
            )

    def encoded_again(self, model: Sam2, images: Mapping[str, npt.ArrayLike]) -> PriorMemory:
        """Return the same prompts with the memories of another model.

        Parameters
        ----------
        images : mapping of str to array
            The recorded images, by `image_hash` or by image name.

        Raises
        ------
        PriorMismatch
            If an image is missing or is not the recorded one.
        """
        again = PriorMemory()
        for recording in self.recordings:
            image = _recorded_image(recording, images)
            # the side was chosen for the old model; another model has its own
            own = recording.model == model.variant.name
            side = recording.side if own else model.variant.image_size
            features = model.encode(image, side=side, square=recording.square)
            again = again.with_recording(*_recorded_again(model, image, features, recording, side))
        return again

    def save(self, path: str | Path) -> None:
        """Write the prior to one safetensors file; an older one is replaced only when the new is complete.

        A link at `path` is replaced, and what it leads to stays as it is.

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
        tensors: dict[str, torch.Tensor] = {}
        for i, (recording, memory) in enumerate(zip(self.recordings, self.memories)):
            tensors[f"{i}.spatial"] = memory.spatial.detach().cpu().contiguous()
            tensors[f"{i}.pointer"] = memory.pointer.detach().cpu().contiguous()
            tensors[f"{i}.thumbnail"] = torch.tensor(recording.thumbnail)
            if recording.mask is not None:
                tensors[f"{i}.mask"] = torch.from_numpy(np.packbits(recording.mask))
        text = json.dumps({"version": VERSION, "recordings": [_to_json(entry) for entry in self.recordings]})
        return to_safetensors(tensors, {FORMAT: text})

    @classmethod
    def load(cls, path: str | Path) -> PriorMemory:
        """Read a prior file. Nothing in the file is run, and nothing beyond it is opened.

        Raises
        ------
        PriorError
            If the file is missing, damaged or no prior.
        """
        path = Path(path)
        entries, tensors = _read(path)
        if not entries:
            raise PriorError(f"{path} is a prior without recordings; record at least one prompt first.")
        pairs = [_from_json(path, i, entry, tensors) for i, entry in enumerate(entries)]
        label, count = Counter(recording.label for recording, _ in pairs).most_common(1)[0]
        if count > MAX_RECORDINGS:
            raise PriorError(
                f"{path} has {count} recordings of label {label}, more than {MAX_RECORDINGS}; record it again."
            )
        if len({recording.weights for recording, _ in pairs}) > 1:
            raise PriorMismatch(f"{path} holds recordings of several models; record them again with one.")
        return cls(tuple(recording for recording, _ in pairs), tuple(memory for _, memory in pairs))


def _recorded_again(
    model: Sam2, image: npt.ArrayLike, features: ImageFeatures, recording: Recording, side: int
) -> tuple[Recording, Memory]:
    if recording.mask is not None:
        fresh, memory = record_mask(
            model, image, features, recording.mask, label=recording.label, name=recording.name,
            image_name=recording.image_name, side=side, square=recording.square,
        )  # fmt: skip
    else:
        prediction = model.segment(features, recording.prompt)
        fresh, memory = record(
            model, image, features, recording.prompt, prediction, label=recording.label, name=recording.name,
            image_name=recording.image_name, mask_index=recording.mask_index, side=side, square=recording.square,
        )  # fmt: skip
    return replace(fresh, enabled=recording.enabled), memory


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


# ---- the file


def _to_json(recording: Recording) -> dict[str, Any]:
    prompt = recording.prompt
    return {
        **{key: getattr(recording, key) for key in _PLAIN},
        "enabled": recording.enabled,
        "image_hw": list(recording.image_hw),
        "points_xy": prompt.points_xy.tolist(),
        "point_labels": prompt.labels.tolist(),
        "box_xyxy": None if prompt.box_xyxy is None else prompt.box_xyxy.tolist(),
    }


_PLAIN: dict[str, tuple[type, ...]] = {
    "label": (int,),
    "name": (str,),
    "image_name": (str,),
    "image_hash": (str,),
    "model": (str,),
    "weights": (str,),
    "side": (int,),
    "square": (bool,),
    "mask_index": (int, type(None)),
    "iou": (float, int),
    "presence": (float, int),
}


# what people read; no fingerprint or hash is taken of it
_NAMES = ("name", "image_name", "model")


def _read(path: Path) -> tuple[list[Any], dict[str, torch.Tensor]]:
    wrong = f"{path} is no prior file"
    try:
        if not path.is_file():
            raise PriorError(f"There is no prior file {path}; give the path of a file that `record` wrote.")
        if path.stat().st_size > LARGEST_FILE:
            raise PriorError(f"{wrong}: it is larger than 4 GB; give a file that `record` wrote.")
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[FORMAT])
            # copies: Windows cannot replace a file that is still mapped
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - no iterator
        if header["version"] != VERSION:
            raise PriorError(
                f"{path} has prior version {plain(header['version'])}, but this program reads {VERSION}; update it."
            )
        entries = header["recordings"]
        if not isinstance(entries, list):
            raise ValueError("its list of recordings is missing")
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise PriorError(
            f"{wrong} or is damaged ({type(error).__name__}); give a file that `record` wrote."
        ) from None
    except OSError as error:
        raise PriorError(
            f"{path} cannot be read ({error.strerror or error}); check the path and its permissions."
        ) from error
    return entries, tensors


def _from_json(path: Path, i: int, entry: Any, tensors: dict[str, torch.Tensor]) -> tuple[Recording, Memory]:
    try:
        for key, kinds in _PLAIN.items():
            if not isinstance(entry[key], kinds) or (isinstance(entry[key], bool) and bool not in kinds):
                raise ValueError(key)
        height, width = (int(n) for n in entry["image_hw"])
        box = entry["box_xyxy"]
        prompt = Prompt(entry["points_xy"], entry["point_labels"], box)
        memory = Memory(tensors[f"{i}.spatial"], tensors[f"{i}.pointer"])
        thumbnail = tensors[f"{i}.thumbnail"].numpy()
        if memory.spatial.ndim != 3 or memory.pointer.ndim != 1 or not memory.spatial.numel():
            raise ValueError("shapes")
        if thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8:
            raise ValueError("thumbnail")
        if not (memory.spatial.is_floating_point() and memory.pointer.is_floating_point()):
            raise ValueError("memories that are no floats")
        if not (memory.spatial.isfinite().all() and memory.pointer.isfinite().all()):
            raise ValueError("numbers that are not finite")
        values = {key: entry[key] for key in _PLAIN}
        values |= {key: clean_name(entry[key]) for key in _NAMES}
        values["enabled"] = entry.get("enabled", True) is not False  # files of the first days lack it
        values["mask"] = _unpacked(tensors.get(f"{i}.mask"), (height, width))
        return Recording(prompt=prompt, image_hw=(height, width), thumbnail=thumbnail, **values), memory
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError, PromptError, PriorError) as error:
        raise PriorError(f"Recording {i} of {path} is damaged ({plain(error)}); record it again.") from None


def _unpacked(bits: torch.Tensor | None, image_hw: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    if bits is None:
        return None
    count = image_hw[0] * image_hw[1]
    if bits.dtype != torch.uint8 or bits.ndim != 1 or min(image_hw) < 1 or len(bits) != -(-count // 8):
        raise ValueError("a mask of another size than its image")
    return np.unpackbits(bits.numpy(), count=count).astype(np.bool_).reshape(image_hw)
