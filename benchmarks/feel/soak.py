"""Memory, threads and handles over a long video: 20,000 frames at 1080p from a real MP4, tracked into a store.

    nice -n 19 python -m benchmarks.feel.soak WORK [--frames 20000] [--side 128] [--model starter]

The clip is made once: a few hundred drawn frames as H.264, whose packets are then repeated to the full length, so
that it is a real file of that many frames. What is measured lies in WORK/memory.jsonl, a line every 100 frames; a
run that was stopped goes on when the same command is given again, and each part is judged on its own. Printed are
the slopes of the resident memory, of the threads and of the handles (open files, on Windows all handles) by least
squares over each part, without its first 1,000 frames.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import psutil

HEIGHT, WIDTH, GROUP, DRAWN = 1080, 1920, 50, 300
EVERY, WARM_UP = 100, 1000
BOUNDS = {"rss_MB": 1.0, "threads": 0.5, "handles": 0.5}  # per 1,000 frames


@cache
def landscape() -> np.ndarray:
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    image = np.stack([60 + x / 30, 70 + y / 20, 90 + (x + y) / 40], -1).astype(np.uint8)
    for _ in range(12):
        cy, cx, r = rng.uniform(0, HEIGHT), rng.uniform(0, WIDTH), rng.uniform(20, 90)
        image[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = rng.integers(30, 200, 3)
    return image


def drawn(index: int) -> np.ndarray:
    """Return an orange disc that wanders over a landscape of other discs, and hides once a round."""
    image, turn = landscape().copy(), 2 * np.pi * index / DRAWN
    if index % DRAWN < DRAWN - 40:
        y, x = int(HEIGHT * (0.5 + 0.3 * np.sin(turn))), int(WIDTH * (0.5 + 0.3 * np.cos(2 * turn)))
        rows, columns = np.mgrid[-130:130, -130:130]
        image[y - 130 : y + 130, x - 130 : x + 130][rows**2 + columns**2 < 130**2] = (230, 120, 40)
    return image


def make_clip(path: Path, frames: int) -> None:
    """Write `DRAWN` frames once, and a file of `frames` frames of the same packets, over and over."""
    once, partial = path.with_name("once.mp4"), path.with_name("clip.partial.mp4")
    options = {"preset": "veryfast", "bf": "0", "g": str(GROUP), "sc_threshold": "0"}
    with av.open(str(once), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(DRAWN):
            frame = av.VideoFrame.from_ndarray(drawn(index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    written = 0
    with av.open(str(partial), "w") as container:
        target = None
        while written < frames:
            with av.open(str(once)) as source:
                stream = source.streams.video[0]
                if target is None:
                    target = container.add_stream_from_template(stream)
                step = int(1 / (25 * stream.time_base))
                for packet in source.demux(stream):
                    if packet.size and written < frames:
                        packet.pts = packet.dts = written * step
                        packet.stream = target
                        container.mux(packet)
                        written += 1
    partial.rename(path)


def track(work: Path, clip: Path, args: argparse.Namespace) -> None:
    from napari_samexp.io.video import open_video
    from napari_samexp.sam import load_model
    from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, record
    from napari_samexp.tracking.run import open_store, track_into
    from napari_samexp.types import Prompt

    model = load_model(args.model, device="cpu")
    image, prior = drawn(0), PriorMemory()
    features = model.encode(image, side=args.side)
    for label in range(1, args.recordings + 1):
        y, x = HEIGHT // 2, WIDTH * 0.8
        prompt = Prompt.from_lists(objects=[(x + 10 * label, y)])
        seen = model.segment(features, prompt)
        made = record(model, image, features, prompt, seen, label=label, side=args.side)
        prior = prior.with_recording(*made)
    settings, process, began = TrackSettings(side=args.side), psutil.Process(), time.monotonic()
    with (
        open_video(clip, cache_bytes=2**26) as video,  # as the command line and the worker do
        open_store(work / "labels.zarr", model, prior, settings, video, resume=True) as store,
        (work / "memory.jsonl").open("a") as log,
    ):
        results = track_into(store, Tracker(model, prior, settings), video, range(args.frames))
        for tracked, result in enumerate(results, start=1):
            if tracked % EVERY == 0 or result.index == args.frames - 1:
                line = {
                    "process": f"{os.getpid()} {process.create_time():.0f}",
                    "frame": result.index,
                    "tracked": tracked,
                    "rss_MB": round(process.memory_info().rss / 1e6, 2),
                    "threads": process.num_threads(),
                    "handles": process.num_handles() if psutil.WINDOWS else process.num_fds(),
                    "frames_per_s": round(tracked / (time.monotonic() - began), 2),
                    "found": not result.scores[1].lost,
                }
                log.write(json.dumps(line) + "\n")
                log.flush()


def slope(lines: list[dict], name: str) -> float | None:
    """Return how much a figure grows in 1,000 frames, or None of too few lines."""
    if len(lines) < 3:
        return None
    frames, values = ([line[key] for line in lines] for key in ("tracked", name))
    return round(1000 * float(np.polyfit(frames, values, 1)[0]), 3)


def held(parts: list[dict]) -> bool:
    """Return whether no figure grew by more than its bound in any part long enough to tell."""
    long = [part for part in parts if part["rss_MB"]["slope"] is not None]
    return bool(long) and all(part[name]["slope"] <= bound for part in long for name, bound in BOUNDS.items())


def report(work: Path) -> list[dict]:
    """Return the figures of each part of the run."""
    parts: dict[str, list[dict]] = {}
    for text in (work / "memory.jsonl").read_text("utf-8").splitlines():
        line = json.loads(text)
        parts.setdefault(line["process"], []).append(line)
    found = []
    for lines in parts.values():
        warm = [line for line in lines if line["tracked"] > WARM_UP]
        part = {"frames": lines[-1]["tracked"], "last_frame": lines[-1]["frame"]}
        for name in BOUNDS:
            values = [line[name] for line in lines]
            part[name] = {
                "first": values[0],
                "last": values[-1],
                "highest": max(values),
                "slope": slope(warm, name),
            }
        found.append(part | {"frames_per_s": lines[-1]["frames_per_s"]})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="a folder for the clip, the labels and the measurements")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--side", type=int, help="of the model's input; by default the model's own")
    parser.add_argument("--recordings", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only judge what was measured")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not args.report:
        clip = args.work / f"clip-{args.frames}.mp4"
        if not clip.exists():
            make_clip(clip, args.frames)
        track(args.work, clip, args)
    parts = report(args.work)
    for part in parts:
        print(json.dumps(part))
    print(json.dumps({"bounds": BOUNDS, "held": held(parts)}))


if __name__ == "__main__":
    main()
