"""What each official model costs: processor time of an image and of a tracked frame, as ratios to SAM 2.1 tiny.

    python -m benchmarks.speed.model_sizes [--side 1024] [--threads 1] [--out model_sizes.json] [NAME ...]

Weights are random, under the official shapes: time does not depend on them. Each model runs in a process of its own,
one at a time, float32. A frame is tracked with one prior memory, six recent memories and fifteen pointers of
recent frames, as in the middle of a video. SAM 1 has no memory and encodes only. The tiny model is measured
first and last, which shows how steady the machine was.

    python -m benchmarks.speed.model_sizes --count

counts the floating-point operations of encoding an image instead, which no other program can disturb.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BASE = "sam2.1_hiera_tiny"


def measure(name: str, side: int, threads: int) -> dict[str, float]:
    """Return seconds of processor time of one image and of one frame, and the peak of the process in MiB."""
    import numpy as np
    import torch

    from napari_samexp.sam.sam1 import Sam1

    torch.set_num_threads(threads)
    model = random_model(name)
    image = np.random.default_rng(0).integers(0, 255, (480, 854, 3), np.uint8)
    model.encode(image, side=64)  # the first call of all pays for what torch sets up
    features, encode = timed(lambda: model.encode(image, side=side))
    figures = {"encode_s": encode}
    if not isinstance(model, Sam1):
        figures["frame_s"] = tracked_frame(model, image, features, side)
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def count(names: list[str], side: int) -> None:
    """Print the floating-point operations of each model's image encoder."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from napari_samexp.sam.variants import VARIANTS
    from napari_samexp.sam.weights.loading import build

    first = 0
    for name in names:
        model = build(VARIANTS[name]).eval()  # no numbers, only shapes
        with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
            model.image_encoder(torch.empty(1, 3, side, side))
        operations = counter.get_total_flops()
        first = first or operations
        print(f"{name:22} {operations / 1e9:6.0f} billion ({operations / first:5.2f})")


def random_model(name: str) -> Any:
    """Return an official model with random weights."""
    import torch

    from napari_samexp.sam.base import Provenance
    from napari_samexp.sam.variants import VARIANTS
    from napari_samexp.sam.weights.loading import build

    torch.manual_seed(0)
    model = build(VARIANTS[name], Provenance("random", lambda: "0" * 64)).to_empty(device="cpu")
    for key, tensor in model.state_dict().items():
        scale = "norm" in key and key.endswith("weight")
        tensor.normal_(1.0 if scale else 0.0, 0.02) if tensor.is_floating_point() else tensor.zero_()
    model.requires_grad_(False).eval()
    return model


def tracked_frame(model: Any, image: Any, features: Any, side: int) -> float:
    """Return the processor time of a frame whose memory is full, its encoding included."""
    from napari_samexp import PriorMemory, Prompt, Tracker, TrackSettings, record

    prompt = Prompt.from_lists(objects=[(400, 200)])
    made = record(model, image, features, prompt, model.segment(features, prompt), side=side)
    tracker = Tracker(model, PriorMemory().with_recording(*made), TrackSettings(side=side, keep_lost=True))
    before = list(range(15))
    tracker.restore(0, {index: {1: made[1]} for index in before}, before)
    return timed(lambda: tracker.step(image, len(before)))[1]


def timed(call: Any) -> tuple[Any, float]:
    began = time.process_time()
    result = call()
    return result, time.process_time() - began


def main() -> None:
    from napari_samexp.sam.weights.catalogue import OFFICIAL

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", default=[])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--count", action="store_true", help="operations instead of time")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.names[0], args.side, args.threads)))
        return
    others = [name for name in args.names or OFFICIAL if name != BASE]
    if args.count:
        count([BASE, *others], args.side)
        return
    rows: list[tuple[str, dict[str, float]]] = []
    for name in (BASE, *others, BASE):
        command = [sys.executable, __file__, name, "--one", "--side", str(args.side), "--threads", str(args.threads)]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{name:22} did not end well (status {done.returncode})")
            continue
        rows.append((name, json.loads(done.stdout)))
        print(line(name, rows[-1][1], rows[0][1]), flush=True)
        if args.out:
            args.out.write_text(
                json.dumps({"side": args.side, "threads": args.threads, "rows": rows}, indent=1)
            )


def line(name: str, figures: dict[str, float], base: dict[str, float]) -> str:
    shown = "  ".join(
        f"{kind} {figures[f'{kind}_s']:7.2f} s ({figures[f'{kind}_s'] / base[f'{kind}_s']:5.2f})"
        for kind in ("encode", "frame")
        if f"{kind}_s" in figures
    )
    return f"{name:22} {shown}  peak {figures['peak_mib']:6.0f} MiB"


if __name__ == "__main__":
    main()
