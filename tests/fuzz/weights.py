"""Bad weights files and priors."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save as to_safetensors

from napari_samexp.posenc.tables import read_tables
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.sam.weights.loading import identify_file, load_model
from napari_samexp.tracking import PriorMemory, Tracker
from napari_samexp.types import Prompt
from tests.fuzz.guard import CANARY, Case
from tests.fuzz.valid_input import SETTINGS, TINY, damaged, frames, tiny_state

FORMAT = "napari_samexp_prior"

# ---- use, as a person would


def used_weights(path: Path, chance: Random) -> Callable[[], object]:
    """Return one of the uses of a weights file: asked what it is, its tables read, or loaded and clicked with."""
    use = chance.choice(("info", "tables", "load", "load"))
    if use == "info":
        return lambda: identify_file(path)[0].name + identify_file(path)[1].sha256[:4]
    if use == "tables":
        return lambda: str(read_tables(path).values().shape)
    return lambda: _clicked(path)


def _clicked(path: Path) -> str:
    variant = None if path.suffix == ".safetensors" else TINY
    model = load_model(path, device="cpu", variant=variant)
    if model.variant.image_size > 512:
        return "a model of full size"
    features = model.encode(frames(1)[0])
    prediction = model.segment(features, Prompt.from_lists([(30, 20)]))
    if isinstance(model, Sam2):
        model.remember(features, prediction)
    return f"mask of {prediction.mask().sum()} pixels"


def used_prior(path: Path, sound: Path) -> Callable[[], object]:
    def use() -> str:
        prior = PriorMemory.load(path)
        model = load_model(sound / "tiny.safetensors", device="cpu")
        assert isinstance(model, Sam2)
        if prior.recordings[0].weights != model.weights_sha256:  # as the session does with another model
            prior = prior.encoded_again(model, {r.image_hash: frames(1)[0] for r in prior.recordings})
        tracker = Tracker(model, prior, SETTINGS)
        result = tracker.step(frames(1)[0], 0)
        prior.save(path.with_name("again.safetensors"))
        return f"{len(prior.recordings)} recordings, labels {sorted(result.scores)}"

    return use


# ---- weights


def damaged_weights(chance: Random, sound: Path, folder: Path) -> Case:
    name = chance.choice(("tiny.safetensors", "tiny.pt", "tiny.pth"))
    data, how = damaged((sound / name).read_bytes(), chance)
    (folder / name).write_bytes(data)
    return Case(f"{name}: {how}", used_weights(folder / name, chance))


def odd_tensors(chance: Random, sound: Path, folder: Path) -> Case:
    """A state dict that is whole, but no model's."""
    state: Any = tiny_state()
    key = chance.choice(sorted(state))
    how = chance.choice(sorted(_STATES))
    state = _STATES[how](state, key, chance)
    path = folder / "odd.pt"
    torch.save(chance.choice((lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": s}))(state), path)
    return Case(f"{how} at {key}", used_weights(path, chance))


def _with(state: dict[str, Any], key: Any, value: Any) -> dict[str, Any]:
    return {**state, key: value}


def _set(value: float) -> Callable[..., Any]:
    def change(state: dict[str, Any], key: str, chance: Random) -> dict[str, Any]:
        tensor = state[key].clone()
        tensor.view(-1)[chance.randrange(tensor.numel())] = value
        return _with(state, key, tensor)

    return change


_STATES: dict[str, Callable[..., Any]] = {
    "NaN": _set(float("nan")),
    "infinity": _set(float("-inf")),
    "huge": _set(3e38),
    "all zero": lambda s, k, c: _with(s, k, torch.zeros_like(s[k])),
    "lacking": lambda s, k, c: {name: value for name, value in s.items() if name != k},
    "more": lambda s, k, c: _with(s, f"{k}.more\x1b[31m", torch.zeros(2)),
    "flat": lambda s, k, c: _with(s, k, s[k].reshape(-1)),
    "scalar": lambda s, k, c: _with(s, k, s[k].reshape(-1)[0].clone()),
    "one more axis": lambda s, k, c: _with(s, k, s[k][None]),
    "empty": lambda s, k, c: _with(s, k, s[k].reshape(-1)[:0].clone()),
    "repeated bytes": lambda s, k, c: _with(s, k, torch.zeros(1).expand(1 << 20, 1 << 10)),
    "whole numbers": lambda s, k, c: _with(s, k, s[k].to(torch.int64)),
    "8 bits": lambda s, k, c: _with(s, k, s[k].to(torch.uint8)),
    "complex": lambda s, k, c: _with(s, k, s[k].to(torch.complex64)),
    "bool": lambda s, k, c: _with(s, k, s[k] > 0),
    "float64": lambda s, k, c: {name: value.double() for name, value in s.items()},
    "float8": lambda s, k, c: _with(s, k, s[k].to(torch.float8_e4m3fn)),
    "sparse": lambda s, k, c: _with(s, k, s[k].reshape(s[k].shape[0], -1).to_sparse()),
    "on the meta device": lambda s, k, c: _with(s, k, s[k].to("meta")),
    "a text": lambda s, k, c: _with(s, k, "weights"),
    "a list": lambda s, k, c: _with(s, k, [1.0] * 100),
    "a dict": lambda s, k, c: _with(s, k, {"a": s[k]}),
    "None": lambda s, k, c: _with(s, k, None),
    "number as key": lambda s, k, c: _with(s, 7, s[k]),
    "bytes as key": lambda s, k, c: _with(s, b"7", s[k]),
    "list of pairs": lambda s, k, c: list(s.items()),
    "one tensor": lambda s, k, c: s[k],
    "nothing": lambda s, k, c: {},
    "very long key": lambda s, k, c: _with(s, "k" * 1_000_000, s[k]),
    "100,000 keys": lambda s, k, c: {**s, **{f"k{n}": s[k].reshape(-1)[:1] for n in range(100_000)}},
    "optimizer beside": lambda s, k, c: {
        "model": s,
        "optimizer": {"lr": 0.1, "betas": (0.9, 0.999)},
        "epoch": 3,
    },
    "as it is": lambda s, k, c: s,
}


def lying_header(chance: Random, sound: Path, folder: Path) -> Case:
    """A safetensors file whose JSON header says something else than what follows."""
    data = (sound / "tiny.safetensors").read_bytes()
    how = chance.choice(sorted(_HEADERS))
    path = folder / "lying.safetensors"
    path.write_bytes(with_header(data, lambda header: _HEADERS[how](header, chance)))
    return Case(f"header: {how}", used_weights(path, chance))


def with_header(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """Return a safetensors file with another header; `change` returns a dict, or bytes to write as they are."""
    size = int.from_bytes(data[:8], "little")
    header = change(json.loads(data[8 : 8 + size]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _entry(**values: Any) -> Callable[..., Any]:
    def change(header: dict[str, Any], chance: Random) -> dict[str, Any]:
        key = chance.choice([name for name in header if name != "__metadata__"])
        return {**header, key: {**header[key], **values}}

    return change


def _variant(**values: Any) -> Callable[..., Any]:
    def change(header: dict[str, Any], chance: Random) -> dict[str, Any]:
        key = "napari_samexp_variant"
        config = json.loads(header["__metadata__"][key])
        return {**header, "__metadata__": {key: json.dumps({**config, **values})}}

    return change


def _metadata(text: Any) -> Callable[..., Any]:
    return lambda header, chance: {**header, "__metadata__": {"napari_samexp_variant": text}}


_HEADERS: dict[str, Callable[..., Any]] = {
    "shape huge": _entry(shape=[1 << 40]),
    "shape overflowing": _entry(shape=[1 << 32, 1 << 32]),
    "shape negative": _entry(shape=[-1]),
    "shape a text": _entry(shape="4"),
    "no shape": _entry(shape=[]),
    "10,000 axes": _entry(shape=[1] * 10_000),
    "offsets behind the end": _entry(data_offsets=[0, 1 << 40]),
    "offsets backwards": _entry(data_offsets=[100, 0]),
    "offsets the same": _entry(data_offsets=[0, 4]),
    "type unknown": _entry(dtype="F1024"),
    "type other": _entry(dtype="F64"),
    "type of whole numbers": _entry(dtype="I32"),
    "not JSON": lambda h, c: b"{" + c.randbytes(100),
    "no UTF-8": lambda h, c: b'{"\xff\xfe": 1}',
    "deep": lambda h, c: b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a list": lambda h, c: b"{}" + b" " * 50,
    "metadata numbers": lambda h, c: {**h, "__metadata__": {"a": 1}},
    "config not JSON": _metadata("{"),
    "config deep": _metadata('{"version":' + "[" * 50_000 + "]" * 50_000 + "}"),
    "config a number": _metadata("9" * 5000),
    "config a long text": _metadata("x" * 1_000_000),
    "config control characters": _metadata('{"version": "2.1\u001b[31m\\u0007"}'),
    "image size huge": _variant(image_size=1 << 30),
    "image size 16384": _variant(image_size=16384),
    "layers huge": _variant(mem_layers=100_000),
    "layers 512": _variant(stages=[512, 512, 512, 512]),
    "channels 16384": _variant(d_model=16384, mem_ff=16384, mlp_dim=16384),
    "heads 3": _variant(num_heads=3),
    "heads 0": _variant(num_heads=0),
    "no number": _variant(embed_dim=float("nan")),
    "true": _variant(embed_dim=True),
    "window 0": _variant(window_spec=[0, 0, 0, 0]),
    "window 16384": _variant(window_spec=[16384, 16384, 16384, 16384]),
    "background huge": _variant(background_hw=[16384, 16384]),
    "global blocks far": _variant(global_blocks=list(range(1000))),
    "name hostile": _variant(name="../../\x1b[2J\n" * 1000),
    "field unknown": _variant(**{"__class__": "os.system"}),
    "version unknown": _variant(version="3"),
    "as it is": lambda h, c: h,
}


# ---- pickles


class Runs:
    """What would run code when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def _payloads(canary: str) -> dict[str, Any]:
    import builtins
    import runpy
    import subprocess

    write = f"open({canary!r}, 'w').close()"
    script = str(Path(canary).with_name("hostile.py"))
    return {
        "os.system": Runs(os.system, f"touch {canary}"),
        "eval": Runs(builtins.eval, write),
        "exec": Runs(builtins.exec, write),
        "subprocess": Runs(subprocess.check_call, ["touch", canary]),
        "runpy": Runs(runpy.run_path, script),
        "open": Runs(open, canary, "w"),
        "os.mkfifo": Runs(os.mknod, canary),
        "getattr": Runs(getattr, "text", "upper"),
        "torch.save": Runs(torch.save, {}, canary),
        "torch.load": Runs(torch.load, script),
        "Path.touch": Runs(Path.touch, Path(canary)),
        "tensor method": Runs(torch.Tensor.share_memory_, Runs(os.system, f"touch {canary}")),
    }


def hostile_pickle(chance: Random, sound: Path, folder: Path) -> Case:
    """A file under any name that would run code if it were unpickled, or take all time or memory."""
    canary = str(folder / CANARY)
    (folder / "hostile.py").write_text(f"open({canary!r}, 'w').close()\n")
    payloads = _payloads(canary)
    which = chance.choice(sorted(payloads))
    content = chance.choice(
        (
            lambda p: p,
            lambda p: {"model": p},
            lambda p: {"model": {"a": torch.zeros(2), "b": p}},
            lambda p: OrderedDict(a=p),
            lambda p: [p, {}],
            lambda p: {("k", p): 1} if _hashable(p) else {"k": p},
        )
    )(payloads[which])
    shape = chance.choice(("pickle", "text pickle", "torch", "legacy", "zip", "zip bomb beside", "renamed"))
    path = folder / chance.choice(("w.pt", "w.pth", "w.safetensors", "w.bin"))
    _write_pickle(path, content, shape, chance)
    return Case(f"{which} in a {shape}", used_weights(path, chance), must="refuse")


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _write_pickle(path: Path, content: Any, shape: str, chance: Random) -> None:
    if shape in ("pickle", "text pickle"):
        protocol = 0 if shape == "text pickle" else chance.choice((2, 3, 4, 5))
        path.write_bytes(pickle.dumps(content, protocol))
    elif shape in ("torch", "legacy", "renamed"):
        torch.save(content, path, _use_new_zipfile_serialization=shape != "legacy")
    else:
        with zipfile.ZipFile(
            path, "w", zipfile.ZIP_STORED if shape == "zip" else zipfile.ZIP_DEFLATED
        ) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(content, 2))
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/data/0", bytes(1 << 20) if shape != "zip" else b"\0" * 8)


def greedy_pickle(chance: Random, sound: Path, folder: Path) -> Case:
    """A pickle of few bytes that asks for very much time or memory, without running anything."""
    how = chance.choice(sorted(_GREEDY))
    data = _GREEDY[how](chance)
    path = folder / "greedy.pt"
    if chance.random() < 0.5:
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
    return Case(f"greedy: {how}", used_weights(path, chance), must="refuse")


def _chain(chance: Random) -> bytes:
    """Pairs of the pair before, of which the last is a key: hashing it takes 2^n steps."""
    depth = chance.randint(40, 200)
    return (
        b"\x80\x02}q\x00)q\x01" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(1, depth)) + b"K\x01s."
    )


def _global(name: str, arguments: bytes) -> bytes:
    module, _, what = name.rpartition(".")
    return b"\x80\x02c" + f"{module}\n{what}\n".encode() + arguments + b"R."


def _long(value: int) -> bytes:
    data = value.to_bytes(9, "little")
    return b"\x8a%c" % len(data) + data


_GREEDY: dict[str, Callable[[Random], bytes]] = {
    "tuples of tuples as a key": _chain,
    "deep lists": lambda c: b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "deep tuples": lambda c: b"\x80\x02)" + b"\x85" * 200_000 + b".",
    "a text of 2^60 bytes": lambda c: b"\x80\x04\x8d" + (1 << 60).to_bytes(8, "little") + b"a.",
    "bytes of 2^60": lambda c: b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b"a.",
    "a number of 2^31 bytes": lambda c: b"\x80\x02\x8b" + (0x7FFFFFFF).to_bytes(4, "little") + b"a.",
    "bytearray of 8 GB": lambda c: _global("builtins.bytearray", _long(8 << 30) + b"\x85"),
    "tensor of 2^62 values": lambda c: _global("torch.Tensor", _long(1 << 62) + b"\x85"),
    "tensor of 2^31 values": lambda c: _global("torch.FloatTensor", _long(1 << 31) + b"\x85"),
    "no end": lambda c: b"\x80\x02" + b"]" * 1000,
    "memo far away": lambda c: b"\x80\x02]r\xff\xff\xff\xffj\xff\xff\xff\xff.",
    "nothing on the stack": lambda c: b"\x80\x02" + c.choice((b"R.", b"b.", b"s.", b"u.", b"a.", b".", b"0.")),
    "persistent id of a text": lambda c: b"\x80\x02X\x03\x00\x00\x00abcQ.",
    "persistent id of a huge storage": lambda c: (
        b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + _long(1 << 50) + b"tQ."
    ),
    "protocol 255": lambda c: b"\x80\xff}.",
    "doubling list": lambda c: b"\x80\x02]q\x00" + b"(h\x00h\x00e" * 2000 + b".",
}  # fmt: skip


def zip_bomb(chance: Random, sound: Path, folder: Path) -> Case:
    """An archive that unpacks to far more than its size."""
    path = folder / "bomb.pt"
    how = chance.choice(
        ("deflated weights", "one large record", "many records", "lying sizes", "overlapping")
    )
    if how == "deflated weights":
        with (
            zipfile.ZipFile(sound / "tiny.pt") as old,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for record in old.infolist():
                new.writestr(record.filename, old.read(record))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}, 2))
            count, size = (20_000, 10) if how == "many records" else (1, 64 << 20)
            for number in range(count):
                archive.writestr(f"archive/data/{number}", bytes(size))
    if how in ("lying sizes", "overlapping"):
        data = bytearray(path.read_bytes())
        place = data.rfind(b"PK\x01\x02")
        if how == "lying sizes":
            struct.pack_into("<I", data, place + 24, chance.choice((0, 5, 0xFFFFFFF0)))
            struct.pack_into("<H", data, place + 10, 0)
        else:
            struct.pack_into("<I", data, place + 42, chance.choice((0, 1, 0xFFFFFFF0)))
        path.write_bytes(bytes(data))
    return Case(f"zip bomb: {how}", used_weights(path, chance), must="refuse")


def no_file(chance: Random, sound: Path, folder: Path) -> Case:
    """What is no ordinary file."""
    how = chance.choice(
        (
            "folder",
            "pipe",
            "link to itself",
            "device",
            "missing",
            "NUL",
            "too long",
            "empty",
            "~",
            "no rights",
        )
    )
    path: Any = folder / "w.pt"
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "link to itself":
        path.symlink_to(path)
    elif how == "device":
        path = Path(chance.choice(("/dev/zero", "/dev/urandom", "/dev/null", "/proc/self/mem")))
    elif how == "NUL":
        path = Path("a\0b.pt")
    elif how == "too long":
        path = Path("w" * 5000)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "~":
        path = Path("~nobody-of-that-name/w.pt")
    elif how == "no rights":
        path.write_bytes(b"x")
        path.chmod(0)
    what = chance.choice(("weights", "prior"))
    do = used_weights(path, chance) if what == "weights" else used_prior(path, sound)
    return Case(f"{how} as {what}", do, must="refuse")


# ---- priors


def damaged_prior(chance: Random, sound: Path, folder: Path) -> Case:
    data, how = damaged((sound / "prior.safetensors").read_bytes(), chance)
    path = folder / "prior.safetensors"
    path.write_bytes(data)
    return Case(f"prior: {how}", used_prior(path, sound), writes=("again",))


def hostile_prior(chance: Random, sound: Path, folder: Path) -> Case:
    """A prior that is a sound safetensors file, with values in its JSON that make no sense."""
    path = folder / "prior.safetensors"
    keys = [*_VALUES_OF, "*"]
    key = chance.choice(keys)
    value = chance.choice(_HOSTILE)(chance)

    def change(header: dict[str, Any]) -> dict[str, Any]:
        about = json.loads(header["__metadata__"][FORMAT])
        entry = about["recordings"][chance.randrange(len(about["recordings"]))]
        if key == "*":
            place = chance.choice((about, about, entry))
            place[chance.choice(sorted(place))] = value
        else:
            entry[key] = chance.choice((value, *_VALUES_OF[key]))
        header["__metadata__"][FORMAT] = json.dumps(about)
        return header

    path.write_bytes(with_header((sound / "prior.safetensors").read_bytes(), change))
    return Case(f"prior: {key} is {str(value)[:40]!r} or so", used_prior(path, sound), writes=("again",))


_HOSTILE: list[Callable[[Random], Any]] = [
    lambda c: None,
    lambda c: True,
    lambda c: -1,
    lambda c: 0,
    lambda c: 1 << 31,
    lambda c: 10**400,
    lambda c: float("nan"),
    lambda c: float("inf"),
    lambda c: 1e308,
    lambda c: 0.5,
    lambda c: "",
    lambda c: "../../../../etc/passwd",
    lambda c: "/dev/zero",
    lambda c: "C:\\Windows\\..\\a\0b",
    lambda c: "\x1b]0;owned\x07\x1b[2J\r\n" * 20,
    lambda c: "<img src=x onerror=alert(1)>",
    lambda c: "\ud800\udfff \u202e \U0001f600",
    lambda c: "x" * 2_000_000,
    lambda c: [],
    lambda c: [[]],
    lambda c: [1] * 200_000,
    lambda c: {},
    lambda c: {"__reduce__": ["os.system", "touch ran"]},
    lambda c: [[[[[[[[1]]]]]]]],
]
_VALUES_OF: dict[str, tuple[Any, ...]] = {
    "label": (0, -1, 65_536, 65_535, 10**30, 1.5, "1", True),
    "name": ("a\nb", "\x1b[31m", "n" * 100_000),
    "image_name": ("../../../../../../etc/passwd", "/etc/shadow", "..\\..\\x", "con", "a\0b", "file:///etc/passwd"),
    "image_hash": ("../../x", "", "f" * 63, "0" * 64),
    "image_hw": ([0, 0], [-1, 5], [1 << 40, 1 << 40], [1, 1], [1e9, 2], ["4", "4"], [48], [48.5, 64.9], [True, True]),
    "points_xy": (
        [[float("nan"), 1]], [[1e39, 1]], [[-5, -5]], [[1e6, 1e6]], [[1, 2, 3]], [[1, 2]] * 5000, [["1", "2"]], [[]],
    ),
    "point_labels": ([2], [-1], [1, 1, 1], ["1"], [[1]], [True, False], [float("nan"), 1], [1.5, 0]),
    "box_xyxy": ([0, 0, 0, 0], [9, 9, 1, 1], [-1e9, -1e9, 1e9, 1e9], [1, 2, 3], "box", [float("inf")] * 4),
    "model": ("starter", "../x", "m" * 100_000, "\x1b[31m"),
    "weights": ("", "0" * 64, "../../x", "w" * 100_000, "\r\n"),
    "side": (0, -64, 63, 4096, 1 << 20, 1 << 62, 64.0),
    "square": (0, "no", None, False),
    "mask_index": (-1, 4, 99, 1 << 40, 1.0),
    "iou": (float("nan"), 1e308, -5),
    "presence": (float("inf"), 1e308),
    "enabled": (0, "yes", [], False),
}  # fmt: skip


def odd_memories(chance: Random, sound: Path, folder: Path) -> Case:
    """A prior whose tensors are sound but not those of a model."""
    from safetensors import safe_open

    path = folder / "prior.safetensors"
    with safe_open(sound / "prior.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    key, how = chance.choice(sorted(tensors)), chance.choice(sorted(_TENSORS))
    tensors[key] = _TENSORS[how](tensors[key]).contiguous()
    if chance.random() < 0.1:
        del tensors[key]
    path.write_bytes(to_safetensors(tensors, metadata))
    return Case(f"prior: {key} {how}", used_prior(path, sound), writes=("again",))


_TENSORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "empty": lambda t: t.reshape(-1)[:0],
    "one": lambda t: torch.ones(1, dtype=t.dtype),
    "scalar": lambda t: torch.ones((), dtype=t.dtype),
    "one more axis": lambda t: t[None],
    "longer": lambda t: torch.cat((t, t)),
    "shorter": lambda t: t[: len(t) // 2],
    "large": lambda t: torch.zeros(8, 500, 500, dtype=t.dtype),
    "NaN": lambda t: torch.full_like(t.float(), float("nan")),
    "huge": lambda t: torch.full_like(t.float(), 3e38),
    "float16": lambda t: t.half(),
    "float64": lambda t: t.double(),
    "whole numbers": lambda t: t.long(),
    "bool": lambda t: t.bool(),
    "turned": lambda t: t.transpose(0, -1) if t.ndim > 1 else t,
}

KINDS = {
    "checkpoint: damaged bytes": damaged_weights,
    "checkpoint: odd tensors": odd_tensors,
    "checkpoint: lying header": lying_header,
    "checkpoint: pickle that runs code": hostile_pickle,
    "checkpoint: greedy pickle": greedy_pickle,
    "checkpoint: zip bomb": zip_bomb,
    "checkpoint, prior: no file": no_file,
    "prior: damaged bytes": damaged_prior,
    "prior: hostile values": hostile_prior,
    "prior: odd memories": odd_memories,
}
