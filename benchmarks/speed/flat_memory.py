"""Peak memory of tracking 200 and 2,000 frames, each in a process of its own.

    python -m benchmarks.speed.flat_memory [--model starter] [--side 128] [--size 256]

Frames are drawn one at a time, so that what grows is the tracker's; labels go into a real store.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SHORT, LONG = 200, 2000


class DrawnVideo:
    """A bright disc on noise, drawn when asked for."""

    fps = 25.0
    fingerprint = "drawn disc"

    def __init__(self, frames: int, size: int) -> None:
        self.shape = (frames, size, size, 3)
        self._grid = np.mgrid[:size, :size]

    def __len__(self) -> int:
        return self.shape[0]

    def frame(self, index: int) -> np.ndarray:
        size = self.shape[1]
        y, x = (size * (0.5 + 0.3 * f(index / 40)) for f in (np.sin, np.cos))
        disc = (self._grid[0] - y) ** 2 + (self._grid[1] - x) ** 2 < (size / 8) ** 2
        image = np.random.default_rng(index).integers(0, 60, self.shape[1:], np.uint8)
        image[disc] = (230, 120, 40)
        return image

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.frame(int(key))


def track(frames: int, args: argparse.Namespace) -> None:
    from napari_samexp.sam import load_model
    from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, record
    from napari_samexp.tracking.run import open_store, track_into
    from napari_samexp.types import Prompt

    model = load_model(args.model, device="cpu")
    video, settings = DrawnVideo(frames, args.size), TrackSettings(side=args.side, keep_lost=True)
    image = video.frame(0)
    features = model.encode(image, side=args.side)
    prompt = Prompt.from_lists(objects=[(args.size * 0.8, args.size * 0.5)])
    recorded = record(model, image, features, prompt, model.segment(features, prompt), side=args.side)
    prior = PriorMemory().with_recording(*recorded)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "labels.zarr", model, prior, settings, video)
        for _ in track_into(store, Tracker(model, prior, settings), video, range(frames)):
            pass
        store.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"frames": frames, "peak_MiB": round(peak, 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="starter")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--size", type=int, default=256, help="side of the frames, in pixels")
    parser.add_argument("--frames", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.frames:
        track(args.frames, args)
        return
    peaks = {}
    for frames in (SHORT, LONG):
        run = subprocess.run(
            [sys.executable, *sys.argv, "--frames", str(frames)], capture_output=True, text=True, check=True
        )
        peaks[frames] = json.loads(run.stdout)["peak_MiB"]
        print(run.stdout.strip(), flush=True)
    print(json.dumps({"growth_MiB": round(peaks[LONG] - peaks[SHORT], 1)}))


if __name__ == "__main__":
    main()
