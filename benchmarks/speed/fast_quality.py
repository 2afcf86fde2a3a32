"""How much the masks of fast mode are those of float32: on the starter's held-out clips.

    python -m benchmarks.speed.fast_quality [--clips 300] [--workers 2] [--out FILE]

Each clip (training/scenes, seeds from 10000, 24 frames) is tracked in float32 and in bfloat16 as fast mode takes
it, with one prior of the same three clicks, which is recorded in each. Prints the IoU of the masks of one with
the other, mean over all frames (two empty masks agree), the share of frames below 0.9, and the J of both with the ground truth.
`tests/sam/fast/test_mixed_precision.py` compares the golden runs, whose weights are random.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed.turns import write


def masks(model: Any, features: Any, example: Any, prompt: Any) -> np.ndarray:
    """Record a prompt on the encoded prior image and track with it: the clip's masks, (T, H, W)."""
    from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, record

    prediction = model.segment(features, prompt)
    prior = PriorMemory().with_recording(*record(model, example.prior, features, prompt, prediction))
    tracker = Tracker(model, prior, TrackSettings())
    return np.stack([tracker.step(frame, t).labels == 1 for t, frame in enumerate(example.frames)])


def compare(weights: str, seeds: list[int], side: int) -> dict[str, list[float]]:
    """Compare the two on some clips, in this process."""
    from napari_samexp.sam import load_model
    from training import scenes
    from training.measure import clicked, jaccard

    torch.set_num_threads(1)
    exact, fast = (load_model(weights, device="cpu", dtype=kind) for kind in ("float32", "bfloat16"))
    rows: dict[str, list[float]] = {"agree": [], "exact J": [], "fast J": [], "clips": []}
    for seed in seeds:
        example = scenes.make_example(scenes.SceneConfig(side=side, frames=24), seed)
        features = exact.encode(example.prior)
        *_, (prompt, _) = clicked(exact, features, example.prior_mask, np.random.default_rng(seed))
        one = masks(exact, features, example, prompt)
        other = masks(fast, fast.encode(example.prior), example, prompt)
        each = [jaccard(a, b) for a, b in zip(one, other)]
        rows["agree"] += each
        rows["clips"].append(float(np.mean(each)))
        for a, b, ground_truth in zip(one, other, example.masks):
            if ground_truth.any():
                rows["exact J"].append(jaccard(a, ground_truth))
                rows["fast J"].append(jaccard(b, ground_truth))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="?", default="starter")
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--first-seed", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256, help="side of the drawn images")
    parser.add_argument("--workers", type=int, default=2, help="processes, each with one thread")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    seeds = range(args.first_seed, args.first_seed + args.clips)
    jobs = [(args.weights, list(seeds[k : k + 4]), args.side) for k in range(0, args.clips, 4)]
    rows: dict[str, list[float]] = {}
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        for part in pool.starmap(compare, jobs, chunksize=1):
            for name, values in part.items():
                rows.setdefault(name, []).extend(values)
    agree = np.array(rows["agree"])
    report = {
        "clips": args.clips,
        "IoU of fast with exact, mean": float(agree.mean()),
        "IoU of fast with exact, median": float(np.median(agree)),
        "frames below 0.9": float((agree < 0.9).mean()),
        "clips whose mean is below 0.9": float((np.array(rows["clips"]) < 0.9).mean()),
        "J of exact": float(np.mean(rows["exact J"])),
        "J of fast": float(np.mean(rows["fast J"])),
    }
    for name, value in report.items():
        print(f"{name:32} {value:.4f}" if isinstance(value, float) else f"{name:32} {value}")
    write(args.out, "fast quality", report=report, clips=rows["clips"])


if __name__ == "__main__":
    main()
