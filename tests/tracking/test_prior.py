"""Priors: what they hold, what they refuse, and files of them that nobody has vouched for."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from napari_samexp._text import LONGEST_NAME
from napari_samexp.errors import ImageError, PriorError, PriorMismatch, SettingsError
from napari_samexp.sam import Memory, Sam2
from napari_samexp.tracking import PriorMemory, Recording, Tracker, prior_file, record
from napari_samexp.tracking.prior import MAX_RECORDINGS
from napari_samexp.tracking.prior_file import FORMAT
from napari_samexp.tracking.recording import image_hash, record_mask
from napari_samexp.types import Prompt
from tests import tiny_run
from tests.parity import golden, parity

IMAGE = tiny_run.drawn_frames(1)[0]
CLICKS = Prompt.from_lists([[50, 24], [52, 25]], [[3, 4]], [40, 10, 60, 40])


@pytest.fixture(scope="module")
def prior(sam21: Sam2) -> PriorMemory:
    return tiny_run.prior_of(sam21, tiny_run.PROMPTS)


@pytest.fixture
def saved(prior: PriorMemory, tmp_path: Path) -> Path:
    prior.save(tmp_path / "prior.safetensors")
    return tmp_path / "prior.safetensors"


def made(model: Any, prompt: Prompt = CLICKS, **named: Any) -> tuple[Recording, Memory]:
    features = model.encode(IMAGE, side=64)
    return record(model, IMAGE, features, prompt, model.segment(features, prompt), side=64, **named)


def blank(label: int = 1, **named: Any) -> tuple[Recording, Memory]:
    """Return a recording without a model."""
    parts = {"image_name": "", "image_hash": "", "image_hw": (4, 4), "model": "m", "weights": "w", "side": 32}
    entry = Recording(label=label, prompt=Prompt(), square=True, **(parts | named))
    return entry, Memory(torch.zeros(2, 1, 1), torch.zeros(4))


def same(one: PriorMemory, other: PriorMemory) -> bool:
    def told(prior: PriorMemory) -> list[Any]:
        return [
            (
                *(getattr(entry, name) for name in prior_file._FIELDS),
                entry.image_hw,
                entry.enabled,
                entry.thumbnail.tolist(),
                None if entry.mask is None else entry.mask.tolist(),
                entry.prompt.points_xy.tolist(),
                entry.prompt.labels.tolist(),
                None if entry.prompt.box_xyxy is None else entry.prompt.box_xyxy.tolist(),
            )
            for entry in prior.recordings
        ]

    tensors = zip(one.memories, other.memories)
    return told(one) == told(other) and all(
        torch.equal(a.spatial, b.spatial)
        and torch.equal(a.pointer, b.pointer)
        and (a.spatial.dtype, a.pointer.dtype) == (b.spatial.dtype, b.pointer.dtype)
        for a, b in tensors
    )


# ---- recording


def test_a_recording_says_how_to_make_its_memory_again(sam21: Sam2) -> None:
    entry, memory = made(sam21, label=7, name="cat", image_name="../a/b.png", mask_index=2)
    assert (entry.label, entry.name, entry.image_name, entry.mask_index) == (7, "cat", "../a/b.png", 2)
    assert entry.image_hw == IMAGE.shape[:2]
    assert entry.image_hash == image_hash(IMAGE)
    assert (entry.model, entry.weights) == (sam21.variant.name, sam21.weights_sha256)
    assert (entry.side, entry.square) == (64, True)
    assert entry.prompt is CLICKS
    prediction = sam21.segment(sam21.encode(IMAGE, side=64), CLICKS)
    assert entry.iou == prediction.iou[2]
    assert entry.presence == prediction.presence
    assert memory.spatial.shape == (sam21.variant.mem_dim, 4, 4)


def test_without_a_side_the_models_own_is_recorded(sam21: Sam2) -> None:
    features = sam21.encode(IMAGE)
    entry, _ = record(sam21, IMAGE, features, CLICKS, sam21.segment(features, CLICKS))
    assert entry.side == sam21.variant.image_size


@pytest.mark.parametrize(
    ("hw", "expected"), [((300, 400), (72, 96)), ((400, 100), (96, 24)), ((20, 30), (20, 30))]
)
def test_the_thumbnail_is_small_and_keeps_the_aspect(sam21: Sam2, hw: Any, expected: Any) -> None:
    image = np.zeros((*hw, 3), np.uint8)
    features = sam21.encode(image, side=32)
    entry, _ = record(sam21, image, features, Prompt(), sam21.segment(features, Prompt()))
    assert entry.thumbnail.shape == (*expected, 3)
    assert entry.thumbnail.dtype == np.uint8


def test_sam_1_cannot_record(sam1: Any) -> None:
    with pytest.raises(PriorError, match=r"SAM 1.*no memory.*SAM 2"):
        made(sam1)


@pytest.mark.parametrize("label", [0, -1, 65_536, 10**400, 1.0, "1", True, None])
def test_labels_are_1_to_65535(sam21: Sam2, label: Any) -> None:
    with pytest.raises(PriorError, match="1 to 65535"):
        made(sam21, label=label)


def test_a_mask_choice_that_is_not_there_cannot_be_recorded(sam21: Sam2) -> None:
    with pytest.raises(SettingsError, match="choices"):
        made(sam21, mask_index=4)


def test_equal_pixels_have_equal_hashes() -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert image_hash(grey) == image_hash(np.repeat(grey[..., None], 3, 2)) == image_hash(grey.copy())
    assert image_hash(grey) != image_hash(grey.reshape(4, 16))
    assert image_hash(grey) != image_hash(grey[::-1])


def test_a_painted_mask_is_recorded_with_itself(sam21: Sam2) -> None:
    features = sam21.encode(IMAGE, side=64)
    mask = np.zeros(IMAGE.shape[:2], bool)
    mask[10:20, 5:40] = True
    entry, memory = record_mask(sam21, IMAGE, features, mask, label=3, name="dog", side=64)
    assert (entry.mask == mask).all()
    assert entry.prompt.is_empty
    assert (entry.label, entry.name, entry.iou) == (3, "dog", 1)
    expected = sam21.remember(features, sam21.from_mask(features, mask))
    assert torch.equal(memory.spatial, expected.spatial)
    with pytest.raises(PriorError, match="empty"):
        record_mask(sam21, IMAGE, features, ~(mask | True))
    with pytest.raises(ImageError, match="shape"):
        record_mask(sam21, IMAGE, features, mask.T)


# ---- priors


def test_a_prior_is_replaced_and_never_changed() -> None:
    empty = PriorMemory()
    one = empty.with_recording(*blank(3))
    two = one.with_recording(*blank(1))
    assert [len(prior.recordings) for prior in (empty, one, two)] == [0, 1, 2]
    assert two.labels == (1, 3)
    assert two.without(0).labels == (1,)
    assert len(two.recordings) == 2


def test_memories_are_found_by_label_in_their_order() -> None:
    prior = PriorMemory()
    for label in (2, 1, 2):
        prior = prior.with_recording(*blank(label))
    assert [memory is prior.memories[i] for memory, i in zip(prior.of_label(2), (0, 2))] == [True, True]
    assert len(prior.of_label(2)) == 2
    assert prior.of_label(9) == []


def test_a_label_is_called_what_it_was_called_last() -> None:
    prior = PriorMemory()
    for label, name in ((1, "cat"), (2, ""), (1, "dog"), (1, "")):
        prior = prior.with_recording(*blank(label, name=name))
    assert prior.names == {1: "dog", 2: ""}


def test_a_label_has_32_recordings_at_most() -> None:
    prior = PriorMemory()
    for _ in range(MAX_RECORDINGS):
        prior = prior.with_recording(*blank(5))
    assert MAX_RECORDINGS == 32
    with pytest.raises(PriorError, match="Label 5 has 32 recordings"):
        prior.with_recording(*blank(5))
    more = prior.with_recording(*blank(6))
    with pytest.raises(PriorError, match="Label 5 has 32"):
        more.with_change(32, label=5)
    assert len(prior.without(0).with_recording(*blank(5)).recordings) == MAX_RECORDINGS


def test_recordings_of_two_models_do_not_mix() -> None:
    prior = PriorMemory().with_recording(*blank(model="sam2_hiera_tiny", weights="a"))
    with pytest.raises(PriorMismatch, match=r"sam2_hiera_tiny.*sam2_hiera_large"):
        prior.with_recording(*blank(model="sam2_hiera_large", weights="b"))


@pytest.mark.parametrize("index", [-1, 2, 100])
def test_a_recording_that_is_not_there_cannot_be_changed(index: int) -> None:
    prior = PriorMemory().with_recording(*blank(1)).with_recording(*blank(2))
    for change in (prior.without, lambda i: prior.with_change(i, label=3)):
        with pytest.raises(PriorError, match=f"no recording {index}; the prior has 2"):
            change(index)


def test_a_recording_can_be_switched_off_and_on() -> None:
    prior = PriorMemory().with_recording(*blank(1, name="cat")).with_recording(*blank(2))
    off = prior.with_change(0, enabled=False)
    assert off.labels == (2,)
    assert off.names == {2: ""}
    assert off.of_label(1) == []
    assert len(off.recordings) == 2
    assert off.fingerprint == prior.without(0).fingerprint != prior.fingerprint
    assert off.with_change(0, enabled=True).fingerprint == prior.fingerprint


def test_a_recording_can_get_another_label_and_name() -> None:
    prior = PriorMemory().with_recording(*blank(1, name="cat"))
    assert prior.with_change(0, label=4, name="dog").names == {4: "dog"}
    with pytest.raises(PriorError, match="label"):
        prior.with_change(0, label=0)


def test_the_fingerprint_is_of_what_tracking_depends_on(prior: PriorMemory) -> None:
    assert prior.with_change(0, name="other").fingerprint == prior.fingerprint
    assert prior.with_change(0, label=9).fingerprint != prior.fingerprint
    assert prior.without(0).fingerprint != prior.fingerprint
    memory = replace(prior.memories[1], pointer=prior.memories[1].pointer + 1e-3)
    other = PriorMemory(prior.recordings, (prior.memories[0], memory, *prior.memories[2:]))
    assert other.fingerprint != prior.fingerprint


# ---- the model that made it


def test_its_own_model_is_right(prior: PriorMemory, sam21: Sam2) -> None:
    prior.require(sam21)


def test_another_model_is_a_mismatch_that_says_which(prior: PriorMemory, models: dict[str, Any]) -> None:
    other = models["SAM 2"]
    with pytest.raises(PriorMismatch) as error:
        prior.require(other)
    for part in (prior.recordings[0].model, other.variant.name, other.weights_sha256[:12], "images"):
        assert part in str(error.value)
    with pytest.raises(PriorMismatch):
        Tracker(other, prior)


def test_sam_1_an_empty_prior_and_one_that_is_off_are_refused(
    prior: PriorMemory, sam1: Any, sam21: Sam2
) -> None:
    with pytest.raises(PriorError, match="SAM 1"):
        prior.require(sam1)
    with pytest.raises(PriorError, match="no recording"):
        PriorMemory().require(sam21)
    off = prior
    for index in range(len(prior.recordings)):
        off = off.with_change(index, enabled=False)
    with pytest.raises(PriorError, match="switched off"):
        off.require(sam21)


@pytest.mark.parametrize("part", ["spatial", "pointer"])
def test_memories_of_other_sizes_are_refused_before_they_are_used(
    prior: PriorMemory, sam21: Sam2, part: str
) -> None:
    memory = replace(prior.memories[2], **{part: torch.cat([getattr(prior.memories[2], part)] * 2)})
    broken = PriorMemory(prior.recordings, (*prior.memories[:2], memory, prior.memories[3]))
    with pytest.raises(PriorError, match="damaged"):
        Tracker(sam21, broken)


@pytest.mark.parametrize("by", ["hash", "name"])
def test_prompts_are_encoded_again_for_another_model(models: dict[str, Any], by: str) -> None:
    old, new = models["SAM 2"], models["SAM 2.1"]
    prior = PriorMemory().with_recording(*made(old, label=3, name="cat", image_name="a.png", mask_index=1))
    prior = prior.with_change(0, enabled=False).with_recording(*made(old, Prompt.from_lists([[9, 9]])))
    key = {"hash": image_hash(IMAGE), "name": "a.png"}[by]
    images = {key: IMAGE} if by == "hash" else {key: IMAGE, "": IMAGE}
    again = prior.encoded_again(new, images)
    again.with_change(0, enabled=True).require(new)
    assert [entry.enabled for entry in again.recordings] == [False, True]
    entry = again.recordings[0]
    assert (entry.label, entry.name, entry.image_name, entry.mask_index) == (3, "cat", "a.png", 1)
    assert entry.prompt is prior.recordings[0].prompt
    assert (entry.model, entry.weights) == (new.variant.name, new.weights_sha256)
    assert entry.side == new.variant.image_size  # the old side was the old model's
    features = new.encode(IMAGE)
    expected = new.remember(features, new.segment(features, CLICKS), 1)
    assert torch.equal(again.memories[0].spatial, expected.spatial)


def test_encoding_again_for_the_same_model_keeps_the_side(prior: PriorMemory, sam21: Sam2) -> None:
    again = prior.encoded_again(sam21, {image_hash(IMAGE): IMAGE})
    assert again.fingerprint == prior.fingerprint
    assert same(again, prior)


def test_a_painted_mask_is_encoded_again(models: dict[str, Any]) -> None:
    old, new = models["SAM 2"], models["SAM 2.1"]
    mask = np.zeros(IMAGE.shape[:2], bool)
    mask[10:20, 5:40] = True
    prior = PriorMemory().with_recording(*record_mask(old, IMAGE, old.encode(IMAGE), mask, label=4))
    again = prior.encoded_again(new, {image_hash(IMAGE): IMAGE})
    assert (again.recordings[0].mask == mask).all()
    features = new.encode(IMAGE)
    assert torch.equal(
        again.memories[0].spatial, new.remember(features, new.from_mask(features, mask)).spatial
    )


def test_missing_and_other_images_are_mismatches(models: dict[str, Any]) -> None:
    prior = PriorMemory().with_recording(*made(models["SAM 2"], image_name="a.png"))
    with pytest.raises(PriorMismatch, match=r"'a\.png' is not among"):
        prior.encoded_again(models["SAM 2.1"], {"b.png": IMAGE})
    with pytest.raises(PriorMismatch, match=r"'a\.png' has other pixels"):
        prior.encoded_again(models["SAM 2.1"], {"a.png": IMAGE[::-1]})


# ---- files


def test_a_prior_survives_its_file(prior: PriorMemory, saved: Path, sam21: Sam2) -> None:
    loaded = PriorMemory.load(str(saved))
    assert same(loaded, prior)
    assert loaded.fingerprint == prior.fingerprint
    loaded.require(sam21)


def test_every_field_survives(sam21: Sam2, tmp_path: Path) -> None:
    mask = np.zeros(IMAGE.shape[:2], bool)
    mask[3:11, 7:20] = True
    painted = record_mask(sam21, IMAGE, sam21.encode(IMAGE), mask, label=65_535)
    entry, memory = made(
        sam21, label=np.uint16(9), name="Katze \u2603 ", image_name="../../x", mask_index=np.int64(3)
    )
    prior = PriorMemory().with_recording(entry, memory).with_recording(*painted).with_change(1, enabled=False)
    prior.save(tmp_path / "p")
    loaded = PriorMemory.load(tmp_path / "p")
    assert same(loaded, prior)
    assert loaded.recordings[0].mask_index == 3
    assert not loaded.recordings[1].enabled
    assert (loaded.recordings[1].mask == mask).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_memories_keep_their_number_type(prior: PriorMemory, dtype: torch.dtype, tmp_path: Path) -> None:
    halves = tuple(Memory(memory.spatial.to(dtype), memory.pointer.to(dtype)) for memory in prior.memories)
    PriorMemory(prior.recordings, halves).save(tmp_path / "half")
    assert same(PriorMemory.load(tmp_path / "half"), PriorMemory(prior.recordings, halves))


def test_a_memory_on_a_strided_tensor_is_saved(prior: PriorMemory, tmp_path: Path) -> None:
    spatial = prior.memories[0].spatial.transpose(1, 2)
    turned = PriorMemory(prior.recordings[:1], (Memory(spatial, prior.memories[0].pointer),))
    turned.save(tmp_path / "p")
    assert torch.equal(PriorMemory.load(tmp_path / "p").memories[0].spatial, spatial)


def test_a_prior_replaces_the_file_it_came_from(saved: Path) -> None:
    loaded = PriorMemory.load(saved)
    loaded.without(0).save(saved)
    assert len(PriorMemory.load(saved).recordings) == len(loaded.recordings) - 1


def test_what_was_read_does_not_follow_the_file(saved: Path, prior: PriorMemory) -> None:
    """A file that stays mapped could not be replaced on Windows."""
    loaded = PriorMemory.load(saved)
    with saved.open("r+b") as file:
        file.write(b"\0" * saved.stat().st_size)
    assert same(loaded, prior)


def test_files_of_the_first_days_are_read(saved: Path, prior: PriorMemory) -> None:
    """They had no switch."""
    edited(saved, lambda header, _: [entry.pop("enabled") for entry in header["recordings"]])
    assert same(PriorMemory.load(saved), prior)


def test_names_are_cut_when_a_file_is_read(saved: Path, prior: PriorMemory) -> None:
    names = {"name": "a\x1b[2J\u202eb\n" + "x" * 10**6, "image_name": "\ud800<b>", "model": "m\0"}
    edited(saved, lambda header, _: [entry.update(names) for entry in header["recordings"]])
    loaded = PriorMemory.load(saved)
    for entry in loaded.recordings:
        assert entry.name.startswith("a[2Jb xxx") and len(entry.name) == LONGEST_NAME
        assert (entry.image_name, entry.model) == ("<b>", "m")
    assert loaded.fingerprint == prior.fingerprint


def test_nothing_recorded_is_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match="nothing to save"):
        PriorMemory().save(tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["missing/p", ".", "file/p"])
def test_a_place_that_cannot_be_written_is_a_prior_error(
    prior: PriorMemory, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PriorError, match="cannot be written"):
        prior.save(tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file(
    prior: PriorMemory, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PriorError, match="No space left"):
        prior.without(0).save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_the_file_appears_only_when_it_is_complete(
    prior: PriorMemory, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks while it is written finds the old one whole."""
    before, seen = saved.read_bytes(), []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (seen.append(saved.read_bytes()), real(handle)))
    prior.without(0).save(saved)
    assert seen[0] == before
    assert saved.read_bytes() != before


# ---- files that nobody has vouched for


def refused(path: Path, match: str | None = None) -> str:
    with pytest.raises(PriorError, match=match) as error:
        PriorMemory.load(path)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def edited(path: Path, change: Callable[[Any, dict[str, torch.Tensor]], Any]) -> Path:
    """Change the header and the tensors of a prior file."""
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[FORMAT])
    change(header, tensors)
    save_file(tensors, path, {FORMAT: json.dumps(header)})
    return path


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no prior file")
    refused(tmp_path, "no prior file")
    refused(tmp_path / "a\0b", "no prior file")
    refused(tmp_path / ("long" * 80))


@pytest.mark.parametrize(
    "content", [b"", b"x", b"PK\3\4", b"{}", b"\xff" * 100, b"\0" * 8 + b"{}", b"\x80\x04cos\nsystem\n"]
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(content)
    refused(tmp_path / "p", "no prior file or is damaged")


def test_weights_are_no_prior() -> None:
    refused(parity.SELECTION / f"{golden.FAMILIES['SAM 2']}_state.safetensors", "no prior file or is damaged")


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "run"),))

    torch.save({"x": Bomb()}, tmp_path / "p")
    refused(tmp_path / "p", "no prior file or is damaged")
    assert not (tmp_path / "run").exists()


def test_a_file_cut_anywhere_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for length in (*range(0, len(content), len(content) // 60), len(content) - 1):
        saved.write_bytes(content[:length])
        refused(saved)


def test_a_flipped_byte_gives_a_prior_or_a_prior_error(saved: Path) -> None:
    content, dice = saved.read_bytes(), random.Random(4)
    header = int.from_bytes(content[:8], "little") + 8
    refusals = 0
    for _ in range(300):
        broken = bytearray(content)
        broken[dice.randrange(header)] ^= 1 << dice.randrange(8)
        saved.write_bytes(broken)
        try:
            PriorMemory.load(saved)
        except PriorError:
            refusals += 1
    assert refusals > 100


def change_entry(**values: Any) -> Callable[[Any, Any], None]:
    return lambda header, _: header["recordings"][1].update(values)


def drop(key: str) -> Callable[[Any, Any], None]:
    return lambda header, _: header["recordings"][1].pop(key)


def put(name: str, tensor: torch.Tensor) -> Callable[[Any, Any], None]:
    return lambda _, tensors: tensors.update({f"1.{name}": tensor})


def take(name: str) -> Callable[[Any, Any], None]:
    return lambda _, tensors: tensors.pop(f"1.{name}")


DAMAGES: dict[str, Callable[[Any, Any], Any]] = {
    **{
        f"without {key}": drop(key)
        for key in (*prior_file._FIELDS, "image_hw", "points_xy", "point_labels", "box_xyxy")
    },
    **{
        f"{key} = {ascii(value)[:24]}": change_entry(**{key: value})
        for key, values in {
            "label": (0, -3, 70_000, 10**300, 1.5, True, "1", None, [1]),
            "name": (None, 3, ["x"]),
            "model": (None, 3),
            "weights": (None, ["x"]),
            "side": ("64", 64.5, None, True),
            "square": (1, "yes", None),
            "mask_index": ("0", 1.0, True),
            "iou": ("high", None, True),
            "presence": ([], None),
            "image_hw": (None, 3, [3], [1, 2, 3], "ab", [1e400, 1], [None, 1], {}),
            "points_xy": (
                "here",
                [[1, 2, 3]],
                [[1, "a"]],
                [[1, None]],
                [[1, 1e39]],
                [[10**400, 1]],
                {"x": 1},
                5,
            ),
            "point_labels": ([7], [[1, 2]], "1", [None], {}, [1, 1, 1, 1, 1, 1]),
            "box_xyxy": ([1, 2], [4, 4, 1, 1], "box", [1, 2, 3, 1e400], {}, [[1], [2, 3]]),
        }.items()
        for value in values
    },
    **{f"without the tensor {name}": take(name) for name in ("spatial", "pointer", "thumbnail")},
    "spatial of two axes": put("spatial", torch.zeros(8, 4)),
    "spatial of no place": put("spatial", torch.zeros(8, 0, 0)),
    "spatial of integers": put("spatial", torch.zeros(8, 4, 4, dtype=torch.int64)),
    "spatial not a number": put("spatial", torch.full((8, 4, 4), torch.nan)),
    "pointer of two axes": put("pointer", torch.zeros(1, 32)),
    "pointer infinite": put("pointer", torch.full((32,), torch.inf)),
    "pointer of ground truths": put("pointer", torch.zeros(32, dtype=torch.bool)),
    "thumbnail of floats": put("thumbnail", torch.zeros(4, 4, 3)),
    "thumbnail in bfloat16": put("thumbnail", torch.zeros(4, 4, 3, dtype=torch.bfloat16)),
    "thumbnail of two axes": put("thumbnail", torch.zeros(4, 4, dtype=torch.uint8)),
    "thumbnail of 9 channels": put("thumbnail", torch.zeros(4, 4, 9, dtype=torch.uint8)),
    "mask too small": put("mask", torch.zeros(3, dtype=torch.uint8)),
    "mask of floats": put("mask", torch.zeros(tiny_run.HEIGHT * tiny_run.WIDTH // 8)),
    "an entry that is a list": lambda header, _: header["recordings"].__setitem__(1, []),
    "an entry that is text": lambda header, _: header["recordings"].__setitem__(1, "label"),
    "an entry that is nothing": lambda header, _: header["recordings"].__setitem__(1, None),
    "more entries than tensors": lambda header, _: header["recordings"].append(header["recordings"][0]),
    "a long wrong label": change_entry(label="x" * 10**6),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_recording_is_named(saved: Path, damage: Callable[[Any, Any], Any]) -> None:
    refused(edited(saved, damage), r"Recording \d of .*is damaged")


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.pop("recordings"),
        lambda header: header.pop("version"),
        lambda header: header.update(recordings={"0": {}}),
        lambda header: header.update(recordings=None),
    ],
)
def test_a_header_without_its_parts_is_refused(saved: Path, change: Callable[[Any], Any]) -> None:
    refused(edited(saved, lambda header, _: change(header)), "no prior file or is damaged")


@pytest.mark.parametrize("version", [2, 0, "1", None, "x" * 10**6, [1]])
def test_another_version_says_so(saved: Path, version: Any) -> None:
    refused(edited(saved, lambda header, _: header.update(version=version)), "version.*this program reads 1")


def test_a_file_without_recordings_is_refused(saved: Path) -> None:
    refused(edited(saved, lambda header, _: header.update(recordings=[])), "without recordings")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '"text"',
        "3",
        "{",
        "[" * 200_000,
        '{"version":' * 50_000,
        '{"version": 1e99999, "recordings": 1}',
    ],
    ids=lambda text: text[:12],
)
def test_metadata_that_are_no_header_are_refused(tmp_path: Path, text: str) -> None:
    save_file({"0.spatial": torch.zeros(1)}, tmp_path / "p", {FORMAT: text})
    refused(tmp_path / "p", "no prior file|version")


def test_a_huge_list_of_recordings_is_refused_at_its_first(saved: Path) -> None:
    refused(edited(saved, lambda header, _: header.update(recordings=[0] * 1_000_000)), "Recording 0")


def test_thousands_of_recordings_are_read(tmp_path: Path) -> None:
    """A label has 32 at most, but labels may be many; time must not grow with their square."""
    entry, memory = blank()
    prior = PriorMemory(tuple(replace(entry, label=1 + i // 2) for i in range(3000)), (memory,) * 3000)
    copies = tuple(Memory(memory.spatial.clone(), memory.pointer.clone()) for _ in range(3000))
    replace(prior, memories=copies).save(tmp_path / "p")
    assert len(PriorMemory.load(tmp_path / "p").labels) == 1500


def test_a_file_with_too_many_recordings_of_a_label_is_refused(tmp_path: Path) -> None:
    entry, memory = blank(4)
    copies = tuple(Memory(memory.spatial.clone(), memory.pointer.clone()) for _ in range(33))
    PriorMemory((entry,) * 33, copies).save(tmp_path / "p")
    refused(tmp_path / "p", "33 recordings of label 4")


def test_a_file_of_two_models_is_a_mismatch(saved: Path) -> None:
    edited(saved, change_entry(weights="other"))
    with pytest.raises(PriorMismatch, match="several models"):
        PriorMemory.load(saved)


def test_names_with_dots_lead_nowhere(sam21: Sam2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of an image is text: nothing is opened by it."""
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    name = "../secret.png"
    PriorMemory().with_recording(*made(sam21, image_name=name)).save("prior")
    loaded = PriorMemory.load("prior")
    assert loaded.recordings[0].image_name == name
    with pytest.raises(PriorMismatch, match="not among"):
        loaded.encoded_again(sam21, {})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["prior", "secret.png", "work"]


def test_a_file_larger_than_any_prior_is_not_opened(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_file, "LARGEST_FILE", saved.stat().st_size - 1)
    refused(saved, "larger than 4 GB")


def test_a_file_that_may_not_be_read_says_so(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(prior_file, "safe_open", locked)
    refused(saved, "cannot be read.*Permission denied")
