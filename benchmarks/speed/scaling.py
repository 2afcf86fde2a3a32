"""What a frame costs against side, labels, recent memories, recordings and place in the video, as curves.

    python -m benchmarks.speed.scaling [--base-side 512] [--turns 3] [--threads 1] [--out FILE.json] [--plots FOLDER]

SAM 2.1 tiny with random weights, float32, CPU time. One thing is varied at a time from one label, one recording, six
recent memories and `--base-side`; memory is full before the first frame is timed. All points of a curve take turns, and
a point's figure is the median of its ratio to the base of the same turn. Beside each stands what
`napari_samexp.tracking.forecast` says, which is what the estimates in the dock and the shell rest on. For the place in
the video, `--frames` frames are tracked in order and their cost is set against their index: the slope of a straight line
through them, in per cent of a frame for 1,000 frames, and the memory that the process holds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed.frame_peer import CLICK, IMAGE_HW, frame
from benchmarks.speed.turns import random_weights, resident_mib, write

AXES: dict[str, tuple[int, ...]] = {
    "side": (256, 512, 768, 1024),
    "labels": (1, 2, 5, 10, 20),
    "recent": (0, 1, 2, 4, 6),
    "recordings": (1, 2, 4, 8, 16, 32),
}
POINTERS = 15


class Setup:
    """The model and one recording of each side."""

    def __init__(self, folder: Path) -> None:
        from napari_samexp.sam import load_model

        self.model = load_model(random_weights("sam2.1_hiera_tiny", folder / "tiny.pt"), device="cpu")
        self._recorded: dict[int, Any] = {}

    def recorded(self, side: int) -> Any:
        from napari_samexp.tracking import record
        from napari_samexp.types import Prompt

        if side not in self._recorded:
            image, prompt = frame(0), Prompt.from_lists(objects=[CLICK])
            features = self.model.encode(image, side=side)
            prediction = self.model.segment(features, prompt)
            self._recorded[side] = image, features, prompt, prediction
        image, features, prompt, prediction = self._recorded[side]
        return lambda label: record(self.model, image, features, prompt, prediction, label=label)

    def tracker(self, side: int, labels: int, recent: int, recordings: int, full: bool = True) -> Any:
        from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings

        make, prior = self.recorded(side), PriorMemory()
        for label in range(1, labels + 1):
            one = make(label)
            for _ in range(recordings):
                prior = prior.with_recording(*one)
        tracker = Tracker(self.model, prior, TrackSettings(side=side, recent=recent, keep_lost=True))
        memory = one[1]
        for bank in tracker._banks.values() if full else ():
            for index in range(-POINTERS, 0):  # instead of tracking fifteen frames first
                bank.store(index, memory)
        tracker._first = 0
        return tracker


def forecast(side: int, labels: int, recent: int, recordings: int) -> float:
    from napari_samexp.sam.variants import VARIANTS
    from napari_samexp.tracking import TrackSettings
    from napari_samexp.tracking.forecast import Work

    settings = TrackSettings(side=side, recent=recent)
    counts = dict.fromkeys(range(1, labels + 1), recordings)
    return Work(VARIANTS["sam2.1_hiera_tiny"], settings, IMAGE_HW, counts).multiplications(POINTERS)


def cost(tracker: Any, index: int) -> float:
    image, began = frame(index), time.process_time()
    tracker.step(image, index)
    return time.process_time() - began


def axis(
    setup: Setup, name: str, values: tuple[int, ...], base: dict[str, int], turns: int
) -> dict[str, Any]:
    """Return cost by value, relative to the base."""
    points = [base | {name: value} for value in values]
    trackers = [setup.tracker(**point) for point in points]
    at = points.index(base)
    taken: list[list[float]] = [[] for _ in points]
    for turn in range(1 + turns):
        costs = [cost(tracker, turn) for tracker in trackers]
        for place, one in enumerate(costs if turn else ()):
            taken[place].append(one / costs[at])
        print(f"{name}: turn {turn + 1} of {1 + turns}", file=sys.stderr)
    measured = [round(float(np.median(one)), 3) for one in taken]
    expected = [round(forecast(**point) / forecast(**base), 3) for point in points]
    for value, found, said in zip(values, measured, expected):
        print(f"{name:11} {value:5}   {found:7.3f} of the base   forecast {said:7.3f}", flush=True)
    return {"values": list(values), "measured": measured, "forecast": expected}


def along(setup: Setup, side: int, frames: int) -> dict[str, Any]:
    """Return what frames cost one after the other, from the twentieth on."""
    tracker = setup.tracker(side, 1, 6, 1)
    costs, held = [], []
    for index in range(frames):
        costs.append(cost(tracker, index))
        held.append(resident_mib())
    costs, held = costs[20:], held[20:]
    slope = float(np.polyfit(np.arange(len(costs)), np.array(costs) / np.median(costs), 1)[0])
    print(
        f"frame index: {100000 * slope:+.2f} % of a frame for 1,000 frames; memory {held[0]:.0f} then {held[-1]:.0f} MiB"
    )
    return {
        "relative cost": [round(float(value), 3) for value in np.array(costs) / np.median(costs)],
        "slope for 1000 frames": round(1000 * slope, 4),
        "resident MiB": [round(value, 1) for value in held[:: max(1, len(held) // 50)]],
    }


def plots(report: dict[str, Any], folder: Path, base: dict[str, int]) -> None:
    """Draw a chart an axis."""
    from napari_samexp.render.charts import line_chart
    from napari_samexp.render.overlay import write_png

    folder.mkdir(parents=True, exist_ok=True)
    for name, found in report["axes"].items():
        top = 1.05 * max(*found["measured"], *found["forecast"])
        series = {kind: (found["values"], found[kind]) for kind in ("measured", "forecast")}
        held = ", ".join(f"{key} {value}" for key, value in base.items() if key != name)
        image = line_chart(
            series, title=f"Cost of a frame against {name} ({held})", x_name=name, limits=(0.0, top)
        )
        write_png(folder / f"bench-{name}.png", image)
    if along := report.get("frame index"):
        costs = np.array(along["relative cost"])
        smooth = np.convolve(costs, np.ones(9) / 9, "valid")
        series = {"cost of a frame, mean of 9": (range(24, 24 + len(smooth)), smooth.tolist())}
        image = line_chart(series, title="Cost of a frame along the video", x_name="frame", limits=(0.0, 2.0))
        write_png(folder / "bench-frame.png", image)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--axes", nargs="*", default=list(AXES), choices=AXES)
    parser.add_argument("--base-side", type=int, default=512)
    parser.add_argument("--sides", type=int, nargs="*", default=AXES["side"])
    parser.add_argument("--frames", type=int, default=300, help="along the video; 0 to leave that out")
    parser.add_argument("--frames-side", type=int, default=128)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plots", type=Path, help="folder for charts")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    base = {"side": args.base_side, "labels": 1, "recent": 6, "recordings": 1}
    report: dict[str, Any] = {"base": base, "axes": {}}
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(Path(folder))
        for name in args.axes:
            values = tuple(sorted({*args.sides, args.base_side})) if name == "side" else AXES[name]
            report["axes"][name] = axis(setup, name, values, base, args.turns)
        if args.frames:
            report["frame index"] = along(setup, args.frames_side, args.frames)
    write(args.out, "scaling", **report)
    if args.plots:
        plots(report, args.plots, base)


if __name__ == "__main__":
    main()
