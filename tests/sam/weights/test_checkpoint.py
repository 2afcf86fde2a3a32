"""Weight files opened safely: good ones of every kind, and every bad one that came to mind."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import json
import os
import pickle
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_samexp.errors import CheckpointError
from napari_samexp.sam.weights.checkpoint import load_strict, read_state, require_finite


def small_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"weight": torch.randn(3, 4, generator=generator), "bias": torch.randn(3, generator=generator)}


def linear_on_meta() -> nn.Linear:
    with torch.device("meta"):
        return nn.Linear(4, 3)


def saved(path: Path, content: Any, *, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def refused(path: Path | str, match: str) -> str:
    with pytest.raises(CheckpointError, match=match) as error:
        read_state(path)
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 800
    return text


# Good files


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["w.pt", "w.pth", "no suffix"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: collections.OrderedDict(state),
        lambda state: {"model": state},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"step": 1, "lr": [0.1]}, "epoch": 3, "note": "text"},
        lambda state: {key: nn.Parameter(tensor) for key, tensor in state.items()},
    ],
)
def test_torch_files_are_read_flat_or_wrapped(
    tmp_path: Path, wrap: Callable[[Any], Any], name: str, legacy: bool
) -> None:
    path = saved(tmp_path / name, wrap(small_state()), legacy=legacy)
    read = read_state(str(path))
    assert read.path == path and read.metadata == {}
    assert read.state.keys() == small_state().keys()
    for key, tensor in small_state().items():
        assert type(read.state[key]) is Tensor and not read.state[key].requires_grad
        assert torch.equal(read.state[key], tensor)


def test_safetensors_are_read_with_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(small_state(), path, metadata={"config": json.dumps({"depth": 2})})
    read = read_state(path)
    assert read.metadata == {"config": '{"depth": 2}'}
    assert all(torch.equal(read.state[key], tensor) for key, tensor in small_state().items())
    save_file(small_state(), path)
    assert read_state(path).metadata == {}


def test_what_a_file_is_shows_in_its_content(tmp_path: Path) -> None:
    save_file(small_state(), tmp_path / "really_safetensors.pt")
    assert read_state(tmp_path / "really_safetensors.pt").state.keys() == small_state().keys()


def test_half_floats_and_shared_tensors_are_read(tmp_path: Path) -> None:
    half = {key: tensor.half() for key, tensor in small_state().items()}
    tied = half | {"again": half["weight"], "transposed": half["weight"].T, "nothing": torch.zeros(0)}
    state = read_state(saved(tmp_path / "w.pt", tied)).state
    assert state["weight"].dtype == torch.float16
    assert torch.equal(state["transposed"], half["weight"].T)


def test_the_hash_is_the_files(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", small_state())
    read = read_state(path)
    assert read.sha256 == read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_changing_a_tensor_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    for path in (saved(tmp_path / "w.pt", small_state()), tmp_path / "w.safetensors"):
        save_file(small_state(), tmp_path / "w.safetensors")
        before = path.read_bytes()
        read_state(path).state["weight"].zero_()
        assert path.read_bytes() == before


# Files that are none


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "w.pt" in refused(tmp_path / "w.pt", "There is no file")
    (tmp_path / "file").write_bytes(b"x")
    refused(tmp_path / "file" / "w.pt", "There is no file|cannot be read")
    refused("nul\0byte.pt", "There is no file")
    refused("~nobody-of-that-name/w.pt", "There is no file")
    refused("x" * 5000, "cannot be read|There is no file")


def test_a_folder_and_a_device_are_no_files(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")
    refused(os.devnull, "is no ordinary file")


def test_an_unreadable_file_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = saved(tmp_path / "w.pt", small_state())
    monkeypatch.setattr(Path, "open", denied)
    refused(path, "Permission denied")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"x", "of an unknown kind"),
        (b"PK", "of an unknown kind"),
        (b"PK\x03\x04", "not a zip file"),
        (b"\x80", "cannot be read as weights"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "cannot be read as weights"),
        (b"\n <!DOCTYPE html><html>404</html>", "web page"),
        (b"<HTML>503</HTML>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
        (bytes(5000), "of an unknown kind"),
        (random.Random(5).randbytes(5000), "of an unknown kind"),
        (b"\x1f\x8b\x08" + bytes(100), "of an unknown kind"),
    ],
)
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_garbage_is_one_sentence(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refused(path, what)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path, kind: str) -> None:
    whole = file_of_kind(tmp_path, kind).read_bytes()
    cut = tmp_path / "cut"
    for length in range(0, len(whole), 37):
        cut.write_bytes(whole[:length])
        refused(cut, "cannot be read as weights|unknown kind|is empty|nothing was run")


def file_of_kind(folder: Path, kind: str) -> Path:
    path = folder / "whole"
    if kind == "safetensors":
        save_file(small_state(), path, metadata={"a": "b"})
        return path
    return saved(path, {"model": small_state()}, legacy=kind == "legacy")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_flipped_bits_are_read_or_refused_but_never_anything_else(tmp_path: Path, kind: str) -> None:
    whole = file_of_kind(tmp_path, kind).read_bytes()
    chance = random.Random(1)
    flipped = tmp_path / "flipped"
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3, 20))):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        flipped.write_bytes(content)
        try:
            state = read_state(flipped).state
        except CheckpointError:
            continue
        assert all(tensor.numel() * tensor.element_size() <= len(whole) for tensor in state.values())


@pytest.mark.parametrize("length", [0, 1 << 20, 100_000_001, 1 << 40, (1 << 64) - 1])
def test_an_absurd_safetensors_header_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{" + b" " * 100)
    refused(path, "Header|header")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1 << 63, 1 << 63], "data_offsets": [0, 4]},
    ],
)
def test_a_lying_safetensors_header_is_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    header = json.dumps({"w": entry}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refused(path, "cannot be read as weights")


# Files that want more than to be read


class Touch:
    """Makes a file when unpickled by an unpickler that trusts."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [lambda touch: touch, lambda touch: {"model": small_state(), "optimizer": touch}, lambda t: {"w": t}],
)
def test_a_pickle_cannot_run_code(tmp_path: Path, wrap: Callable[[Any], Any], legacy: bool) -> None:
    marker = tmp_path / "marker"
    path = saved(tmp_path / "w.pt", wrap(Touch(marker)), legacy=legacy)
    assert "nothing was run" in refused(path, "asks to run '(posix|nt).system'")
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_plain_pickle_cannot_run_code(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps(Touch(marker), protocol=protocol))
    refused(path, "asks to run|cannot be read as weights|of an unknown kind")
    assert not marker.exists()


def test_no_error_tells_how_to_switch_the_protection_off(tmp_path: Path) -> None:
    text = refused(saved(tmp_path / "w.pt", {"w": collections.deque([1])}), "asks to run 'collections.deque'")
    assert "weights_only" not in text and "safe_globals" not in text


def rewritten(path: Path, compression: int, extra: dict[str, bytes] | None = None) -> Path:
    """Copy a torch file's records into another archive."""
    target = path.with_name("rewritten.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", compression) as copy:
        for record in source.infolist():
            copy.writestr(record.filename, source.read(record))
        for name, content in (extra or {}).items():
            copy.writestr(f"w/{name}", content)
    return target


def test_a_zip_bomb_is_refused_unopened(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", small_state())
    bomb = rewritten(path, zipfile.ZIP_DEFLATED, {"data/9": bytes(200_000_000)})
    assert bomb.stat().st_size < 1_000_000
    refused(bomb, "would unpack to 20[0-9]{7} bytes")


def test_a_stored_record_that_claims_more_than_the_file_is_refused(tmp_path: Path) -> None:
    content = bytearray(saved(tmp_path / "w.pt", small_state()).read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 4_000_000_000)  # uncompressed size
    (tmp_path / "w.pt").write_bytes(content)
    refused(tmp_path / "w.pt", "would unpack to 4000")


def test_other_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    refused(tmp_path / "a.pt", "zip archive without weights")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("b/data.pkl", b"")
        archive.writestr("b/constants.pkl", b"")
    refused(tmp_path / "b.pt", "TorchScript")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_that_repeats_its_bytes_is_refused(tmp_path: Path, legacy: bool) -> None:
    huge = torch.zeros(1).expand(1 << 20, 1 << 20)
    refused(saved(tmp_path / "w.pt", {"w": huge}, legacy=legacy), "claims more values than")


def test_a_legacy_file_that_claims_a_huge_tensor_is_refused(tmp_path: Path) -> None:
    content = saved(tmp_path / "w.pt", {"w": torch.zeros(77)}, legacy=True).read_bytes()
    count = b"K" + bytes([77])
    assert count in content
    (tmp_path / "w.pt").write_bytes(content.replace(count, b"J" + struct.pack("<i", 2_000_000_000)))
    refused(tmp_path / "w.pt", "cannot be read as weights|claims more values")


class Attributed(collections.OrderedDict):  # type: ignore[type-arg]
    """Pickles as an OrderedDict whose methods are hidden by attributes."""

    def __reduce__(self) -> tuple[Any, ...]:
        hidden = dict.fromkeys(("items", "keys", "values", "get", "__len__"), 1)
        return collections.OrderedDict, (), hidden, None, iter(dict.items(self))


def test_attributes_that_hide_methods_change_nothing(tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.detach = parameter.untyped_storage = torch.zeros(1)  # type: ignore[method-assign, assignment]
    path = saved(tmp_path / "w.pt", Attributed(model=Attributed(w=parameter)))
    raw = torch.load(path, weights_only=True)
    assert raw.items == 1 and dict.get(raw, "model").items == 1
    assert isinstance(dict.get(dict.get(raw, "model"), "w").detach, Tensor)
    assert torch.equal(read_state(path).state["w"], torch.ones(2))


def test_a_dict_that_holds_itself_is_one_sentence(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["model"] = endless
    refused(saved(tmp_path / "w.pt", endless), r"'model' \(dict\)")


def test_odd_pickles_warn_nobody(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(small_state(), buffer, pickle_protocol=3)
    path = tmp_path / "w.pt"
    path.write_bytes(buffer.getvalue())
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with contextlib.suppress(CheckpointError):
            read_state(path)
    assert not seen


# Content that is no state dict


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({}, "an empty dict"),
        ({"model": {}}, "an empty dict"),
        ([torch.zeros(1)], "a list"),
        (torch.zeros(1), "a Tensor"),
        (5, "a int"),
        ({"w": torch.zeros(1), "epoch": 3}, r"'epoch' \(int\)"),
        ({"model": {"w": torch.zeros(1), "b": [1], "c": "text"}}, r"'b' \(list\), 'c' \(str\)"),
        ({1: torch.zeros(1)}, "a key of type int"),
        ({"w": torch.zeros(1, dtype=torch.int64)}, r"'w' \(torch.int64"),
        ({"w": torch.zeros(1, dtype=torch.complex64)}, r"'w' \(torch.complex64"),
        ({"w": torch.zeros(3).to_sparse()}, "torch.sparse_coo"),
        ({"w": torch.zeros(3, device="meta")}, r"'w' \(torch.float32, torch.strided, meta\)"),
        ({f"k{i}": i for i in range(9)}, r"'k0' \(int\), 'k1' \(int\), 'k2' \(int\) and 6 more"),
        ({"\x1b[2J" + "x" * 10_000: 3}, r"'\[2Jxxx"),
    ],
)
def test_what_is_no_state_dict_names_the_first_wrong_keys(tmp_path: Path, content: Any, what: str) -> None:
    refused(saved(tmp_path / "w.pt", content), what)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_that_are_no_numbers_are_found(bad: float, dtype: torch.dtype) -> None:
    state = small_state()
    require_finite(state, source="mine.pt")
    state["bias"] = torch.tensor([0.0, bad, 1.0], dtype=dtype)
    with pytest.raises(CheckpointError, match=r"mine\.pt has values that are not finite numbers in 'bias'"):
        require_finite(state, source="mine.pt")


# Into a module


def test_a_module_takes_the_tensors_themselves() -> None:
    state = small_state()
    module = linear_on_meta()
    assert load_strict(module, state, source="s") is module
    assert module.weight.data_ptr() == state["weight"].data_ptr()
    assert module.weight.requires_grad
    ones = torch.ones(4)  # the same product: processors add up in different orders
    assert torch.equal(module(ones), torch.nn.functional.linear(ones, state["weight"], state["bias"]))


def test_half_floats_become_the_modules_type_or_the_one_asked_for() -> None:
    half = {key: tensor.half() for key, tensor in small_state().items()}
    module = load_strict(linear_on_meta(), half, source="s")
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert torch.equal(module.weight, half["weight"].float())
    module = load_strict(linear_on_meta(), half, source="s", dtype=torch.bfloat16)
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}


def test_a_state_that_does_not_fit_names_keys_and_shapes() -> None:
    state = small_state() | {"bias": torch.zeros(5), "mask": torch.zeros(1)}
    del state["weight"]
    module = linear_on_meta()
    with pytest.raises(CheckpointError) as error:
        load_strict(module, state, source="mine.pt")
    assert str(error.value) == (
        "mine.pt does not fit Linear: it lacks 'weight'; it has the unexpected 'mask'; it has the shapes "
        "'bias' (5,) instead of (3,); use a file of this model, or give the configuration that it was made "
        "with."
    )
    assert module.bias.is_meta


def test_only_the_first_three_keys_are_named() -> None:
    state = small_state() | {f"extra.{i}": torch.zeros(1) for i in range(10)}
    with pytest.raises(CheckpointError, match=r"'extra\.0', 'extra\.1', 'extra\.2' and 7 more;"):
        load_strict(linear_on_meta(), state, source="s")


def test_a_mapped_file_goes_into_a_module(tmp_path: Path) -> None:
    read = read_state(saved(tmp_path / "w.pt", {"model": small_state()}))
    module = load_strict(linear_on_meta(), read.state, source=read.path)
    assert torch.equal(module.weight, small_state()["weight"])


def test_finite_numbers_whose_sum_is_not_are_finite() -> None:
    largest = torch.full((4,), torch.finfo(torch.float32).max)
    require_finite({"a": largest, "b": torch.full((3,), 6e4).half()}, source="s")
    for value in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(CheckpointError, match="not finite numbers in 'a'"):
            require_finite({"a": torch.cat((largest, torch.tensor([value])))}, source="s")
    both = torch.tensor([float("inf"), -float("inf")])
    with pytest.raises(CheckpointError, match="not finite numbers in 'a'"):
        require_finite({"a": both}, source="s")
