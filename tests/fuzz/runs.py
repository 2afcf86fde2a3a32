"""Bad label stores, manifests, journals and settings, and bad command lines."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from napari_samexp.batch.jobs import Job
from napari_samexp.batch.manifest import Manifest
from napari_samexp.engine.journal import PriorJournal, state_of
from napari_samexp.errors import SamexpError
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video
from napari_samexp.measure.masks import array_masks, open_masks
from napari_samexp.sam.weights.loading import load_model
from napari_samexp.session.folders import SessionFolder, left_sessions
from napari_samexp.session.preferences import Preferences, load_preferences, save_preferences
from napari_samexp.session.stores import read_store
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, open_store, track_into
from tests.fuzz.guard import CANARY, Case
from tests.fuzz.media import odd_array
from tests.fuzz.valid_input import FRAMES, SETTINGS, damaged, frames
from tests.fuzz.weights import Runs, _payloads

# ---- label stores


def used_store(path: Path, sound: Path, chance: Random) -> Callable[[], object]:
    """Return one of the uses of a store: looked into, shown and painted, measured, or gone on with."""
    use = chance.choice((_looked_into, _painted, _measured, _gone_on_with, _remembered))
    return lambda: use(path, sound)


def _looked_into(path: Path, sound: Path) -> str:
    found = read_store(path)
    with LabelStore.open(path, mode="r") as store:
        refused = None
        for index in range(min(store.shape[0], 8)):
            try:
                frame = store.frame(index)
                assert frame.shape == store.shape[1:]
            except SamexpError as error:
                refused = error
        assert len(store.done) == store.shape[0]
        if refused:
            raise refused
    return f"{found.done} of {len(found.frames)}"


def _painted(path: Path, sound: Path) -> str:
    labels = EditableLabels(path)
    shown = labels[0:1]
    labels[0, 0, :3] = 1
    assert (labels[0, 0, :3] == 1).all()
    return str(shown.shape)


def _measured(path: Path, sound: Path) -> str:
    with open_masks(path) as masks:
        return str([int(masks.frame(index).max()) for index in range(min(masks.shape[0], FRAMES))])


def _gone_on_with(path: Path, sound: Path) -> str:
    model: Any = load_model(sound / "tiny.safetensors", device="cpu")
    prior = PriorMemory.load(sound / "prior.safetensors")
    with open_video(frames()) as video:
        tracker = Tracker(model, prior, SETTINGS)
        with open_store(path, model, prior, SETTINGS, video, resume=True) as store:
            done = [result.index for result in track_into(store, tracker, video, range(FRAMES))]
            assert not store.missing()
    return f"tracked {done}"


def _remembered(path: Path, sound: Path) -> str:
    with LabelStore.open(path) as store:
        return str(sorted(store.load_memories()))


def damaged_store(chance: Random, sound: Path, folder: Path) -> Case:
    """A store of which a file is damaged, missing, or something else."""
    path = folder / "run.zarr"
    shutil.copytree(sound / "run.zarr", path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    names: dict[str, list[Path]] = {}
    for file in files:
        names.setdefault(file.name[:4], []).append(file)
    file = chance.choice(names[chance.choice(sorted(names))])
    what = chance.choice(
        (
            "damaged",
            "damaged",
            "damaged",
            "missing",
            "a folder",
            "a link outside",
            "a pipe",
            "another's",
            "no rights",
        )
    )
    how = what
    if what == "damaged":
        data, how = damaged(file.read_bytes(), chance)
        file.write_bytes(data)
    else:
        content = file.read_bytes()
        file.unlink()
        if what == "a folder":
            file.mkdir()
        elif what == "a link outside":
            file.symlink_to(chance.choice(("/etc/passwd", "/dev/zero", "/nowhere")))
        elif what == "a pipe":
            os.mkfifo(file)
        elif what == "another's":
            file.write_bytes(
                chance.choice([*files[:1], sound / "a.png"]).read_bytes() if files[0].exists() else b"x"
            )
        elif what == "no rights":
            file.write_bytes(content)
            file.chmod(0)
    return Case(f"store: {file.name} {how}", used_store(path, sound, chance), writes=("run.zarr",))


def hostile_store(chance: Random, sound: Path, folder: Path) -> Case:
    """A store whose JSON says what no run would have written."""
    path = folder / "run.zarr"
    shutil.copytree(sound / "run.zarr", path)
    how = chance.choice(sorted(_METADATA))
    file = path / "zarr.json"
    metadata = json.loads(file.read_bytes())
    changed = _METADATA[how](metadata, chance)
    file.write_bytes(changed if isinstance(changed, bytes) else json.dumps(changed or metadata).encode())
    return Case(f"store: {how}", used_store(path, sound, chance), writes=("run.zarr",))


def _put(*path: Any) -> Callable[..., Any]:
    *keys, value = path

    def change(metadata: Any, chance: Random) -> Any:
        place = metadata
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        return metadata

    return change


_OWN = ("attributes", "napari_samexp")
_METADATA: dict[str, Callable[..., Any]] = {
    "shape of other length": _put("shape", [3, 48, 64]),
    "shape longer": _put("shape", [9_000_000, 48, 64]),
    "shape huge": _put("shape", [1 << 60, 1 << 60, 1 << 60]),
    "shape negative": _put("shape", [-1, 48, 64]),
    "shape of texts": _put("shape", ["6", "48", "64"]),
    "shape of one axis": _put("shape", [6]),
    "shape none": _put("shape", None),
    "chunks of all": _put("chunk_grid", "configuration", "chunk_shape", [6, 48, 64]),
    "chunks of none": _put("chunk_grid", "configuration", "chunk_shape", [0, 0, 0]),
    "chunks other": _put("chunk_grid", {"name": "rectangular"}),
    "16 bits": _put("data_type", "uint16"),
    "objects": _put("data_type", "object"),
    "any type": _put("data_type", {"name": "structured", "configuration": {"fields": []}}),
    "fill 1": _put("fill_value", 1),
    "keys elsewhere": _put("chunk_key_encoding", {"name": "default", "configuration": {"separator": "/../"}}),
    "no codecs": _put("codecs", []),
    "codec pickle": _put("codecs", [{"name": "numcodecs.pickle", "configuration": {}}]),
    "codecs numbers": _put("codecs", [1, 2]),
    "codec of bytes odd": _put("codecs", 0, {"name": "bytes", "configuration": {"endian": "middle"}}),
    "codec of zstd odd": _put(
        "codecs", 1, {"name": "zstd", "configuration": {"level": 10**9, "checksum": "no"}}
    ),
    "codec of zstd bare": _put("codecs", 1, {"name": "zstd"}),
    "sharded": _put(
        "codecs", [{"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 1, 1], "codecs": []}}]
    ),
    "transformers": _put("storage_transformers", [{"name": "os.system"}]),
    "a group": _put("node_type", "group"),
    "format 2": _put("zarr_format", 2),
    "version 2": _put(*_OWN, "version", 2),
    "version a list": _put(*_OWN, "version", [1] * 1000),
    "no labels": _put(*_OWN, "labels", {}),
    "labels far": _put(*_OWN, "labels", {"70000": "x"}),
    "labels texts": _put(*_OWN, "labels", {"one": "x"}),
    "100,000 labels": _put(*_OWN, "labels", {str(n): "x" for n in range(1, 60_000)}),
    "label names hostile": _put(*_OWN, "labels", {"1": "../../x\x1b[2J\n\x00", "2": "=cmd|'/c calc'!A1"}),
    "label names long": _put(*_OWN, "labels", {"1": "x" * 1_000_000, "2": "y"}),
    "label names no texts": _put(*_OWN, "labels", {"1": ["x"], "2": None}),
    "identity none": _put(*_OWN, "identity", None),
    "identity more": _put(
        *_OWN, "identity", {"video": "", "prior": "", "model": "", "settings": "", "x": ""}
    ),
    "identity numbers": _put(*_OWN, "identity", {"video": 1, "prior": 2, "model": 3, "settings": 4}),
    "details none": _put(*_OWN, "details", None),
    "details hostile": _put(
        *_OWN,
        "details",
        {"video_path": "/dev/zero", "frames": {"range": [0, 10**18, 1]}, "settings": {"side": 10**9}},
    ),
    "frames steps 0": _put(*_OWN, "details", {"frames": {"range": [0, 6, 0]}}),
    "frames many": _put(*_OWN, "details", {"frames": {"range": [10**18, 0, -1]}}),
    "frames listed": _put(*_OWN, "details", {"frames": {"list": ["a", {}, 1e400]}}),
    "frames infinite": _put(*_OWN, "details", {"frames": {"list": [float("inf")]}}),
    "video elsewhere": _put(*_OWN, "details", {"video_path": "../../../../etc/passwd", "limits": [1]}),
    "video a number": _put(*_OWN, "details", {"video_path": 7, "limits": "x"}),
    "settings hostile": _put(*_OWN, "details", {"settings": {"recent": "many", "direction": "sideways"}}),
    "settings a list": _put(*_OWN, "details", {"settings": [1]}),
    "not JSON": lambda m, c: b"{" + c.randbytes(200),
    "deep": lambda m, c: b"[" * 200_000 + b"]" * 200_000,
    "a list": lambda m, c: b"[]",
    "a number": lambda m, c: b"9" * 6000,
    "large": lambda m, c: json.dumps({**m, "more": "x" * 20_000_000}).encode(),
    "foreign": lambda m, c: {**m, "attributes": {}},
    "as it is": lambda m, c: m,
}


def hostile_lines(chance: Random, sound: Path, folder: Path) -> Case:
    """A store whose journal, list of painted frames or frame memories hold hostile values."""
    path = folder / "run.zarr"
    shutil.copytree(sound / "run.zarr", path)
    what = chance.choice(("scores.jsonl", "edited.json", "memory"))
    value = chance.choice(_LINES)
    if what == "scores.jsonl":
        lines = (path / what).read_bytes().splitlines(keepends=True)
        lines.insert(chance.randrange(len(lines) + 1), value + b"\n")
        (path / what).write_bytes(b"".join(lines))
    elif what == "edited.json":
        (path / what).write_bytes(chance.choice((value, b'{"frames": ' + value + b"}")))
    else:
        from safetensors.numpy import save

        large = chance.choice(
            (
                {"1.spatial": np.zeros((5, 5), np.float32)},
                {"../../x": np.zeros(3)},
                {"one": np.zeros(0)},
                {},
                {"1.spatial": np.full((8, 4, 4), np.nan, np.float32), "1.pointer": np.zeros(32, np.float32)},
            )
        )
        name = chance.choice(("000000003.safetensors", "999999999.safetensors", "000000002.safetensors"))
        (path / "memory").mkdir(exist_ok=True)
        (path / "memory" / name).write_bytes(save(large, {"run": "0"}))
    return Case(f"store: {what} {value[:30]!r}", used_store(path, sound, chance), writes=("run.zarr",))


_LINES = [
    b"{}", b"[]", b"null", b"7", b'"x"', b"{", b"\xff\xfe", b'{"frame": 0}', b'{"frame": -1, "scores": {}}',
    b'{"frame": 99999999999999999999, "scores": {"1": [1, 1], "2": [1, 1]}}',
    b'{"frame": 1.0, "scores": {"1": [1, 1], "2": [1, 1]}}', b'{"frame": true, "scores": {"1": [1, 1], "2": [1, 1]}}',
    b'{"frame": 1, "scores": {"1": [NaN, 1], "2": [1, 1]}}', b'{"frame": 1, "scores": {"1": [1e999, 1], "2": [1, 1]}}',
    b'{"frame": 1, "scores": {"1": [' + b"9" * 5000 + b', 1], "2": [1, 1]}}',
    b'{"frame": 1, "scores": {"1": [1], "2": [1, 1, 1]}}', b'{"frame": 1, "scores": {"3": [1, 1]}}',
    b'{"forget": [0, 1, 2, 3]}', b'{"forget": ["a"]}', b'{"forget": -1}', b'{"forget": [[]]}',
    b"[" * 100_000 + b"]" * 100_000, b"[0, 1, 2, -5, 99999999999, true, \"a\"]", b"x" * 5_000_000,
    b'{"frame": 1, "scores": {"1": [1, 1], "2": [1, 1]}}',
]  # fmt: skip


def bomb_chunk(chance: Random, sound: Path, folder: Path) -> Case:
    """A frame of labels that unpacks to far more than a frame, or to less."""
    from numcodecs import Zstd

    path = folder / "run.zarr"
    shutil.copytree(sound / "run.zarr", path)
    size = chance.choice((0, 1, 48 * 64 - 1, 48 * 64 + 1, 200 << 20, 3 << 30))
    content = bytearray(Zstd(level=1).encode(bytes(min(size, 200 << 20))))
    if size > 200 << 20:  # the header's claim alone: a frame of one segment with its size in 8 bytes
        content = bytearray(b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + bytes(content)[13:])
    for number in range(FRAMES):
        (path / f"c.{number}.0.0").write_bytes(bytes(content))
    use = chance.choice((_looked_into, _painted, _measured))
    return Case(f"store: chunks of {size} bytes", lambda: use(path, sound), writes=("run.zarr",))


def foreign_zarr(chance: Random, sound: Path, folder: Path) -> Case:
    """A zarr array of somebody else, as labels to be measured; some name codecs that would run code."""
    path = folder / "foreign.zarr"
    path.mkdir()
    canary = str(folder / CANARY)
    payloads = _payloads(canary)
    data = pickle.dumps(payloads[chance.choice(sorted(payloads))])
    pickled = {"id": chance.choice(("pickle", "json2", "msgpack2", "vlen-bytes", "nothing"))}
    compressor, filters = chance.choice(
        ((pickled, None), (None, [pickled]), (pickled, [{"id": "shuffle", "elementsize": 1}]))
    )
    kind = chance.choice(("|u1", "|O", "<u2", "|S4", "<M8[s]", [["a", "|u1"]]))
    if chance.random() < 0.5:
        (path / ".zarray").write_text(json.dumps(
            {"zarr_format": 2, "shape": [2, 4, 4], "chunks": [1, 4, 4], "dtype": kind, "compressor": compressor,
             "filters": filters, "fill_value": 0, "order": "C"}
        ))  # fmt: skip
        for number in range(2):
            (path / f"{number}.0.0").write_bytes(data)
        return Case(f"zarr 2: {compressor} {filters} {kind}", lambda: _measured(path, sound), must="refuse")
    codecs = chance.choice(
        (
            [{"name": "bytes"}, {"name": "numcodecs.pickle", "configuration": {}}],
            [{"name": "numcodecs.zlib", "configuration": {"level": 1}}],
            [{"name": "vlen-bytes"}],
            [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}],
            [],
        )
    )
    shape = chance.choice(([2, 4, 4], [4, 4], [1 << 40, 1 << 20, 1 << 20], [2, 4, 4, 4, 4], [], [0, 0, 0]))
    (path / "zarr.json").write_text(json.dumps(
        {"zarr_format": 3, "node_type": "array", "shape": shape, "data_type": chance.choice(("uint8", "float32", "variable_length_bytes", "bool")),
         "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, n) for n in shape]}},
         "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}, "fill_value": 0, "codecs": codecs,
         "attributes": {}}
    ))  # fmt: skip
    (path / "c" / "0" / "0").mkdir(parents=True)
    (path / "c" / "0" / "0" / "0").write_bytes(data)
    return Case(f"zarr 3: {codecs} {shape}", lambda: _measured(path, sound))


def odd_masks(chance: Random, sound: Path, folder: Path) -> Case:
    array, how = odd_array(chance, 3)

    def use() -> str:
        if chance.random() < 0.5:
            np.save(folder / "masks.npy", np.asarray(array, dtype=object), allow_pickle=True)
            with open_masks(folder / "masks.npy") as masks:
                return str(masks.shape)
        masks = array_masks(array)
        return str(masks.frame(0).shape)

    return Case(f"masks: {how}", use, writes=("masks.npy",))


# ---- manifests, journals, settings


def bad_manifest(chance: Random, sound: Path, folder: Path) -> Case:
    path = folder / "manifest.jsonl"
    shutil.copytree(sound / "run.zarr", folder / "run.zarr")
    data = (sound / "manifest.jsonl").read_bytes()
    if chance.random() < 0.5:
        data, how = damaged(data, chance)
    else:
        line = chance.choice([*_LINES, *_JOBS])
        data, how = chance.choice((line + b"\n" + data, data + line, data + line + b"\n")), repr(line[:40])
    path.write_bytes(data)
    job = Job(
        "a/b", str(sound / "prior.safetensors"), str(sound / "h264.mp4"), str(folder / "run.zarr"), "starter"
    )

    def use() -> str:
        manifest = Manifest(path)
        before = manifest.is_done(job, "k")
        from napari_samexp.batch.jobs import JobResult
        from napari_samexp.batch.run import run_jobs

        class Nowhere:
            def run(self, jobs: Any, stop: Any) -> Any:
                yield from (JobResult(one.name, "failed", error="no") for one in jobs)

        events = list(run_jobs([job], Nowhere(), manifest, retries=0))  # type: ignore[arg-type]
        manifest.begin({"x": 1})
        assert path.read_bytes().startswith(data.rstrip(b"\n")[: len(data) // 2])
        return f"done: {before}, {events[-1].status}"  # type: ignore[union-attr]

    return Case(f"manifest: {how}", use)


_JOBS = [
    b'{"job": "a/b", "status": "done", "key": "k", "frames": "many"}',
    b'{"job": "a/b", "status": "done", "key": "k"}',
    b'{"job": "a/b", "status": "done", "key": "k", "frames": 1e999}',
    b'{"job": "a/b", "status": "done", "key": "k", "frames": ' + b"9" * 5000 + b"}",
    b'{"job": "a/b", "status": ["done"], "key": {"k": 1}, "frames": []}',
    b'{"job": ["a/b"], "status": "done"}',
    b'{"job": "../../x", "status": "done", "store": "/etc"}',
    b'{"job": "a/b", "status": "done", "key": "k", "frames": null, "store": "../../../x"}',
    b'{"job": "a/b", "status": "done", "key": "k", "frames": NaN}',
]


def bad_journal(chance: Random, sound: Path, folder: Path) -> Case:
    """A session's folder whose files are damaged, foreign, or hostile."""
    parent = folder / "sessions"
    place = parent / "20260101-000000-abcdef" / "prior"
    place.mkdir(parents=True)
    good = (sound / "prior.safetensors").read_bytes()
    for revision in range(1, 4):
        (place / f"{revision:08d}-{revision:04d}-{revision + 5}.safetensors").write_bytes(good)
    for _ in range(chance.choice((1, 2))):
        name = chance.choice(
            ("00000003-0003-8.safetensors", "00000004-0004-9.safetensors", "00000004-0004-9.empty", "99999999-9999-1.safetensors",
             f"00000005-0001-{'9' * 80}.safetensors", "x.safetensors", "00000006-0006-1.safetensors.partial", "-1-1-1.empty")
        )  # fmt: skip
        file = place / name
        what = chance.choice(("damaged", "pickle", "folder", "pipe", "link", "empty", "good"))
        file.unlink(missing_ok=True) if not file.is_dir() else shutil.rmtree(file)
        if what == "damaged":
            file.write_bytes(damaged(good, chance)[0])
        elif what == "pickle":
            file.write_bytes(pickle.dumps(_payloads(str(folder / CANARY))["os.system"]))
        elif what == "folder":
            file.mkdir()
        elif what == "pipe":
            os.mkfifo(file)
        elif what == "link":
            file.symlink_to(chance.choice(("/dev/zero", "/etc/passwd", file.name)))
        else:
            file.write_bytes(good if what == "good" else b"")
    (place / "images").mkdir()
    (place / "images" / "x.png").write_bytes(damaged((sound / "a.png").read_bytes(), chance)[0])

    def use() -> str:
        left = left_sessions(parent)
        journal = PriorJournal(place)
        state = state_of(journal, None)
        sound_prior = PriorMemory.load(sound / "prior.safetensors")
        made = sound_prior.recordings[0], sound_prior.memories[0]
        number = len(state.recordings)
        journal.commit(journal.prior.with_recording(*made), 77)
        assert len(PriorJournal(place).prior.recordings) == number + 1
        while journal.undoable:
            journal.undo(78)
        SessionFolder(parent).close()
        return f"{len(left)} left, {number} recordings, {str(journal.notice or '')[:60]}"

    return Case("journal of a session", use, writes=("sessions",))


def bad_settings(chance: Random, sound: Path, folder: Path) -> Case:
    path = folder / "settings.json"
    data = (sound / "settings.json").read_bytes()
    how = chance.choice(("damaged", "value", "value", "value", "pickle", "huge", "folder", "pipe"))
    if how == "damaged":
        data, how = damaged(data, chance)
    elif how == "value":
        values = json.loads(data)
        place = chance.choice((values, values["track"], values["last_run"]))
        key = chance.choice([*sorted(place), "more"])
        place[key] = chance.choice(_SETTINGS)
        data, how = json.dumps(values).encode(), f"{key} is {str(place[key])[:40]!r}"
    elif how == "pickle":
        data = pickle.dumps(Runs(os.system, f"touch {folder / CANARY}"))
    elif how == "huge":
        data = b" " * 50_000_000 + data
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(data)

    def use() -> str:
        preferences, notice = load_preferences(path)
        assert isinstance(preferences, Preferences)
        assert not notice or ("\n" not in notice and notice.endswith("."))
        save_preferences(preferences, folder / "again.json")
        assert load_preferences(folder / "again.json") == (preferences, "")
        return notice

    return Case(f"settings: {how}", use, must="work")


_SETTINGS: list[Any] = [
    None, True, -1, 0, 7, 10**30, 1.5, float("nan"), float("inf"), "", "x" * 100_000, "../../x", "\x1b[2J\0\n", [], [[1, 2, 3]],
    [["a"]], [["a", "b"]], {}, {"store": 1}, {"recent": 3}, {"__class__": "x"}, "\ud800",
]  # fmt: skip


def odd_settings(chance: Random, sound: Path, folder: Path) -> Case:
    """Settings as arguments, as JSON and as changes of preferences."""
    names = ["recent", "pointers", "store_memories", "keep_lost", "side", "square", "prior_time", "prior_distance",
             "pointer_span", "round_memories", "direction", "model", "device", "dtype", "hover", "more", "track", "last_run"]  # fmt: skip
    values = {chance.choice(names): chance.choice(_SETTINGS) for _ in range(chance.choice((1, 1, 3)))}
    how = chance.choice(("arguments", "JSON", "changes", "text", "model"))

    def use() -> str:
        if how == "JSON":
            return TrackSettings.from_json(json.dumps(values)).to_json()[:20]
        if how == "text":
            return TrackSettings.from_json(
                chance.choice([str(values), *(b.decode(errors="replace") for b in _LINES)])
            ).to_json()[:20]
        if how == "changes":
            return Preferences().changed(values).to_json()[:20]
        if how == "model":
            load_model(
                sound / "tiny.safetensors",
                device=values.get("device", "cpu"),
                dtype=values.get("dtype", "float32"),
            )  # type: ignore[arg-type]
            return "loaded"
        known = {name: value for name, value in values.items() if name in TrackSettings.__slots__}
        settings = TrackSettings(**known)
        model: Any = load_model(sound / "tiny.safetensors", device="cpu")
        prior = PriorMemory.load(sound / "prior.safetensors")
        return str(Tracker(model, prior, settings).step(frames(1)[0], 0).scores)

    return Case(f"settings as {how}: {str(values)[:80]}", use)


# ---- command lines


def command_line(chance: Random, sound: Path, folder: Path) -> Case:
    """A command of known options and unlikely values."""
    arguments = _arguments(chance, sound, folder)

    def use() -> str:
        from napari_samexp.cli import run

        status = run(arguments)
        said = Path(f"{folder}.err").read_text(errors="replace")
        lines = said.strip().splitlines()
        if status == 2:
            raise SamexpError(lines[-1].removeprefix("napari-samexp: ") if lines else "")
        assert status == 0, f"status {status}: {said[-1500:]}"
        return said[-80:]

    return Case(" ".join(arguments)[:300], use)


_OPTIONS: dict[str, tuple[str, ...]] = {
    "info": ("--json", "--sha256"),
    "record": ("--out", "--model", "--point", "--background", "--box", "--label", "--name", "--mask-index", "--side", "--device",
               "--dtype", "--append", "--overwrite", "--json", "--keep-aspect", "--sha256"),
    "track": ("--prior", "--out", "--model", "--frames", "--side", "--device", "--dtype", "--recent", "--pointers", "--prior-time",
              "--image", "--resume", "--overwrite", "--scores", "--overlay", "--json", "--backward", "--no-memories", "--sha256"),
    "compare": ("--out", "--videos", "--images", "--model", "--image", "--vary", "--ground-truth", "--frames", "--retries", "--json"),
    "evaluate": ("--ground-truth", "--out", "--frames", "--pair", "--void", "--json"),
    "export": ("--to", "--out", "--video", "--frames", "--overwrite"),
    "posenc": ("--out", "--model", "--grid", "--part", "--dtype", "--channels", "--per-channel", "--overwrite", "--json"),
    "batch": ("--out", "--frames", "--workers", "--scheduler", "--retries"),
    "demo": ("--nothing",),
    "nothing": ("--help",),
}  # fmt: skip
_FLAGS = {
    "--json",
    "--append",
    "--overwrite",
    "--keep-aspect",
    "--resume",
    "--backward",
    "--no-memories",
    "--per-channel",
    "--help",
    "--nothing",
}
_SOUND = {
    "--point": ("10,10", "0,0"), "--background": ("5,5",), "--box": ("1,2,30,40",), "--label": ("2", "65535"), "--name": ("é\u202e", "a/b", ""),
    "--mask-index": ("0", "3"), "--side": ("64", "96"), "--device": ("cpu",), "--dtype": ("float32", "bfloat16"), "--frames": ("0:2", "-1:"),
    "--recent": ("0",), "--pointers": ("0",), "--prior-time": ("elapsed",), "--image": ("a.png",), "--scores": ("x.csv",),
    "--overlay": ("x.mp4",), "--images": ("a.png",), "--pair": ("1=2",), "--void": ("255",), "--to": ("png", "coco", "tracks", "table"),
    "--grid": ("1,1", "3,200"), "--part": ("window", "times", "memory:prior"), "--channels": ("0", "1:3"), "--vary": ("recent=0,1",),
}  # fmt: skip
_VALUES = (
    "", " ", "-", "--", "0", "-1", "1", "7", "99999999999999999999", "1e999", "nan", "0.5", "x", "a,b", "1,2", "30,20", "1,2,3,4", "-5,-5",
    "1e308,1", ":", "0:3", "3:1", "-2:", "1:2:3", "0:99999999999", "NaN:1", "é\u202e\U0001f600", "\x1b[2J", "a\nb", "a\0b", "\ud800", "x" * 5000,
    "../../../etc/passwd", "/dev/null", "/dev/zero", "/", ".", "..", "~", "~nobody/x", "con", "https://127.0.0.1:9/w.pt", "http://x/w.pt",
    "file:///etc/passwd", "sam2.1_hiera_tiny", "starter", "cpu", "cuda", "cuda:99", "meta", "float64", "auto", "fixed", "tiff", "png", "coco",
    "ome-zarr", "overlay", "table", "tracks", "recent=0-999999999", "recent=1,2", "recordings=0", "x=1", "1=2", "1=1", "relative:0", "memory:prior",
    "1024,1024", "0,0", "2000,2000", "*", "[", "**/*", "0" * 64, "f" * 63,
)  # fmt: skip


def _arguments(chance: Random, sound: Path, folder: Path) -> list[str]:
    command = chance.choice(sorted(_OPTIONS))
    files = _command_files(sound, folder)
    out = [
        "x.safetensors",
        "x.zarr",
        "x.csv",
        "x.mp4",
        "x.png",
        "x.npy",
        "x.tif",
        "x.json",
        "new/x",
        "there",
        "x",
    ]
    arguments = [command]
    likely = {
        "info": [files[0]],
        "record": ["a.png", "--out", "x.safetensors", "--model", files[0], "--point", "30,20"],
        "track": ["clip.mp4", "--prior", "prior.safetensors", "--model", files[0], "--out", "x.zarr"],
        "compare": ["prior.safetensors", "--model", files[0], "--videos", "clip.mp4", "--out", "new"],
        "evaluate": ["run.zarr", "--ground-truth", "run.zarr"],
        "export": ["run.zarr", "--to", "tiff", "--out", "x.tif"],
        "posenc": ["--model", files[0], "--out", "x.npy"],
        "batch": [files[0]],
    }.get(command, [])
    if chance.random() < 0.8:
        arguments += likely
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        option = chance.choice(_OPTIONS[command])
        arguments.append(option)
        if option in _SOUND and chance.random() < 0.5:
            arguments.append(chance.choice(_SOUND[option]))
        elif option not in _FLAGS:
            arguments.append(chance.choice(chance.choice((_VALUES, files, out))))
    if chance.random() < 0.2 and len(arguments) > 1:
        arguments[chance.randrange(1, len(arguments))] = chance.choice(chance.choice((_VALUES, files)))
    if chance.random() < 0.1:
        chance.shuffle(arguments)
    if "batch" in arguments:  # a sound batch would start processes
        arguments = [a for a in arguments if a != "prior.safetensors"]
    return ["nothing" if a == "demo" and "--nothing" not in arguments else a for a in arguments]


def _command_files(sound: Path, folder: Path) -> list[str]:
    for name, source in (
        ("clip.mp4", "h264.mp4"),
        ("prior.safetensors", "prior.safetensors"),
        ("a.png", "a.png"),
        ("stack.tif", "stack.tif"),
    ):
        shutil.copy(sound / source, folder / name)
    shutil.copytree(sound / "run.zarr", folder / "run.zarr")
    (folder / "there").mkdir()
    (folder / "empty.pt").write_bytes(b"")
    (folder / "text.mp4").write_text("no video")
    (folder / "hostile.pt").write_bytes(pickle.dumps(Runs(os.system, f"touch {folder / CANARY}")))
    (folder / "hostile.npy").write_bytes(
        b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(128)
        + pickle.dumps(Runs(os.system, f"touch {folder / CANARY}"))
    )
    return [
        str(sound / "tiny.safetensors"), "clip.mp4", "clip.mp4@2", "clip.mp4@99", "prior.safetensors", "a.png", "stack.tif", "run.zarr",
        "empty.pt", "text.mp4", "hostile.pt", "hostile.npy", "there", "missing", "a.png@0",
    ]  # fmt: skip


KINDS = {
    "store: damaged file": damaged_store,
    "store: hostile metadata": hostile_store,
    "store: hostile lines": hostile_lines,
    "store: bomb": bomb_chunk,
    "labels: foreign zarr": foreign_zarr,
    "labels: odd array": odd_masks,
    "manifest": bad_manifest,
    "session: journal": bad_journal,
    "session: settings file": bad_settings,
    "settings": odd_settings,
    "command line": command_line,
}
