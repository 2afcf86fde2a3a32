"""Sound files of every kind, small, which bad input is made of; and ways to damage any file's bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
import tifffile
import torch
from PIL import Image
from safetensors.torch import save_file

from napari_samexp.io.labels import LabelStore
from napari_samexp.sam.build import new_model
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.sam.variants import Sam2Variant
from napari_samexp.sam.weights.loading import load_model, metadata_for
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, record, record_mask
from napari_samexp.tracking.run import open_store, track_into
from napari_samexp.types import Prompt

HEIGHT, WIDTH, FRAMES = 48, 64, 6
TINY = Sam2Variant(
    name="tiny-random", version="2.1", embed_dim=8, num_heads=1, stages=(1, 2, 2, 1), global_blocks=(3,),
    window_spec=(8, 4, 4, 2), image_size=64, d_model=32, mem_dim=8, mem_ff=32, mem_layers=1, mlp_dim=32,
    iou_hidden=16,
)  # fmt: skip
SETTINGS = TrackSettings(recent=2, pointers=3)

# name, codec, pixel format, options
CLIPS: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("h264.mp4", "libx264", "yuv420p", {"g": "4"}),
    ("bframes.mp4", "libx264", "yuv420p", {"g": "6", "bf": "2"}),
    ("fragmented.mp4", "libx264", "yuv420p", {"g": "3"}),
    ("h264.mkv", "libx264", "yuv420p", {"g": "4"}),
    ("h264.ts", "libx264", "yuv420p", {"g": "4"}),
    ("mpeg4.avi", "mpeg4", "yuv420p", {"g": "4"}),
    ("mjpeg.avi", "mjpeg", "yuvj420p", {}),
    ("mpeg1.mpg", "mpeg1video", "yuv420p", {"g": "4"}),
    ("vp9.webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime"}),
    ("ffv1.mkv", "ffv1", "bgr0", {}),
    ("ffv1.nut", "ffv1", "yuv420p", {}),
    ("raw.mov", "rawvideo", "rgb24", {}),
    ("prores.mov", "prores_ks", "yuv422p10le", {}),
    ("flv.flv", "flv", "yuv420p", {"g": "4"}),
    ("anim.gif", "gif", "rgb8", {}),
)


def frames(count: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return a disc on noise that moves to the right."""
    y, x = np.mgrid[:height, :width]
    image = np.random.default_rng(3).integers(0, 90, (height, width, 3), np.uint8)
    image[(y - height * 0.4) ** 2 + (x - width * 0.5) ** 2 < 100] = (230, 120, 40)
    return np.stack([np.roll(image, 3 * index, axis=1) for index in range(count)])


def write_video(
    path: Path,
    images: Sequence[np.ndarray],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    kind: str | None = None,
    container: dict[str, str] | None = None,
    source: str = "rgb24",
) -> Path:
    """Write images as a video; `times` are in hundredths of a second."""
    with av.open(str(path), "w", format=kind, options=container or {}) as out:
        stream: Any = out.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format=source)
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 100)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def tiny_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Return weights of a tiny model that always sees an object."""
    torch.manual_seed(seed)
    state = {name: value.detach().clone() for name, value in new_model(TINY).state_dict().items()}
    for value in state.values():
        if not value.any():
            torch.nn.init.normal_(value, std=0.5)
    biases = [name for name in state if "pred_obj_score_head" in name and name.endswith("bias")]
    state[sorted(biases)[-1]] += 20
    return state


def make_sound_files(folder: Path) -> None:
    """Write weights, a prior, a store, a journal, images and videos; a few seconds."""
    torch.set_num_threads(1)
    state = tiny_state()
    save_file(state, folder / "tiny.safetensors", metadata_for(TINY))
    torch.save({"model": state}, folder / "tiny.pt")
    torch.save(state, folder / "tiny.pth", _use_new_zipfile_serialization=False)
    _images(folder)
    for name, codec, pixels, options in CLIPS:
        container = {"movflags": "frag_keyframe+empty_moov"} if name == "fragmented.mp4" else {}
        write_video(folder / name, list(frames()), codec, pixels, options, container=container)
    _runs(folder)


def _images(folder: Path) -> None:
    pixels = frames(1)[0]
    image = Image.fromarray(pixels)
    for name in ("a.png", "a.jpg", "a.bmp", "a.webp", "a.gif", "a.ppm", "a.tga", "a.jp2"):
        image.save(folder / name)
    Image.fromarray(pixels[..., 0]).convert("P").save(folder / "palette.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(folder / "deep.png")
    tifffile.imwrite(folder / "stack.tif", frames()[..., 0])
    tifffile.imwrite(folder / "imagej.tif", frames()[..., 0].astype(np.uint16), imagej=True)
    tifffile.imwrite(folder / "deflate.tif", frames()[..., 0], compression="zlib")
    tifffile.imwrite(folder / "ome.ome.tif", frames()[..., 0], metadata={"axes": "TYX"})
    image.save(folder / "lzw.tif", compression="tiff_lzw")
    with av.open(str(folder / "sound.wav"), "w") as out:
        _sound(out, "pcm_s16le")
    with av.open(str(folder / "sound.m4a"), "w", format="mp4") as out:
        _sound(out, "aac")


def _sound(out: Any, codec: str) -> None:
    stream = out.add_stream(codec, rate=8000, layout="mono")
    planar = codec == "aac"
    data = np.zeros((1, 1024), np.float32 if planar else np.int16)
    for number in range(8):
        frame = av.AudioFrame.from_ndarray(data, format="fltp" if planar else "s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 1024 * number, Fraction(1, 8000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def _runs(folder: Path) -> None:
    model = load_model(folder / "tiny.safetensors", device="cpu")
    assert isinstance(model, Sam2)
    prior = sound_prior(model)
    prior.save(folder / "prior.safetensors")
    from napari_samexp.io.video import open_video

    with (
        open_video(frames()) as video,
        open_store(
            folder / "run.zarr", model, prior, SETTINGS, video, details={"video_path": "run.mp4"}
        ) as store,
    ):
        for _ in track_into(store, Tracker(model, prior, SETTINGS), video, range(FRAMES - 2)):
            pass
    (folder / "run.zarr" / "edited.json").write_text(json.dumps({"frames": [1]}))
    with LabelStore.open(folder / "run.zarr", mode="r") as made:
        (folder / "identity.json").write_text(json.dumps(asdict(made.identity)))
    (folder / "manifest.jsonl").write_text(
        json.dumps({"run": {"at": "2026-01-01T00:00:00+00:00", "version": "0"}})
        + "\n"
        + json.dumps({"job": "a/b", "status": "done", "key": "k", "frames": 4, "store": "run.zarr"})
        + "\n"
    )
    from napari_samexp.session.preferences import LastRun, Preferences

    (folder / "settings.json").write_text(
        Preferences(last_run=LastRun("run.zarr", None, (("k", 1),))).to_json()
    )


def sound_prior(model: Sam2) -> PriorMemory:
    """Return a prior of two labels: a click and a painted mask."""
    image = frames(1)[0]
    features = model.encode(image)
    prompt = Prompt.from_lists([(30, 20)], [(2, 2)])
    prior = PriorMemory().with_recording(
        *record(
            model, image, features, prompt, model.segment(features, prompt), name="disc", image_name="a.png"
        )
    )
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[10:30, 20:40] = True
    return prior.with_recording(*record_mask(model, image, features, mask, label=2, name="square"))


# Damage


def damaged(data: bytes, chance: Random) -> tuple[bytes, str]:
    """Return a file's bytes with one kind of damage, and its name."""
    name = chance.choice(sorted(_DAMAGES))
    return _DAMAGES[name](data, chance), name


def _place(data: bytes, chance: Random) -> int:
    """Return a place in a file, more often near its ends, where formats keep what matters."""
    low, high = chance.choice(((0, 64), (0, 1024), (max(0, len(data) - 1024), len(data)), (0, len(data))))
    return chance.randint(min(low, len(data)), min(high, len(data)))


def _flip(data: bytes, chance: Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 3, 30, 300))):
        if out:
            out[min(_place(data, chance), len(out) - 1)] ^= 1 << chance.randrange(8)
    return bytes(out)


def _block(data: bytes, chance: Random, content: bytes) -> bytes:
    start = _place(data, chance)
    return data[:start] + content + data[start + len(content) :]


def _number(data: bytes, chance: Random) -> bytes:
    """Put a telling number where a length or a size may be."""
    value = chance.choice(
        (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 31, 1 << 40, (1 << 63) - 1)
    )
    size = chance.choice((2, 4, 8))
    content = (value & ((1 << 8 * size) - 1)).to_bytes(size, chance.choice(("little", "big")))
    return _block(data, chance, content)


def _between(data: bytes, chance: Random) -> tuple[int, int]:
    return tuple(sorted((_place(data, chance), _place(data, chance))))  # type: ignore[return-value]


def _removed(data: bytes, chance: Random) -> bytes:
    start, stop = _between(data, chance)
    return data[:start] + data[stop:]


def _repeated(data: bytes, chance: Random) -> bytes:
    start, stop = _between(data, chance)
    return data[:stop] + data[start:stop] + data[stop:]


_DAMAGES: dict[str, Any] = {
    "cut short": lambda data, chance: data[: _place(data, chance)],
    "bits flipped": _flip,
    "a telling number": _number,
    "a hole of zeros": lambda data, chance: _block(data, chance, bytes(chance.randint(1, 4096))),
    "a block of noise": lambda data, chance: _block(data, chance, chance.randbytes(chance.randint(1, 4096))),
    "a part removed": _removed,
    "a part twice": _repeated,
    "something before": lambda data, chance: chance.randbytes(chance.choice((1, 4, 512))) + data,
    "something behind": lambda data, chance: data + chance.randbytes(chance.choice((1, 4, 4096))),
    "nothing": lambda data, chance: b"",
    "one byte": lambda data, chance: data[:1],
    "zeros alone": lambda data, chance: bytes(len(data)),
    "noise alone": lambda data, chance: chance.randbytes(chance.choice((7, 600, 20_000))),
    "a web page": lambda data, chance: b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "a pointer": lambda data, chance: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n",
    "halves swapped": lambda data, chance: data[len(data) // 2 :] + data[: len(data) // 2],
}
