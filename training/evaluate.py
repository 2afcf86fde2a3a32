"""Measure a checkpoint on held-out scenes, through the same calls that users make.

For each clip the prior picture is segmented from one, two and three random clicks; the prediction
of the last is recorded, and the clip is tracked with that prior alone. J is intersection over
union; a frame counts where the object is visible, and presence in every frame. "Picking at random"
is the J of a randomly chosen thing of the frame with perfect outlines.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import scenes
import torch
from train import clicks

from napari_samexp.sam import load_model
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, record
from napari_samexp.types import Prompt

VISIBLE = 0.001  # share of the frame's pixels


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def evaluate_clip(model, example: scenes.Example, rng: np.random.Generator, settings: TrackSettings) -> dict:
    features = model.encode(example.prior, side=settings.side)
    xy, labels = clicks(example.prior_mask, 3, rng)
    scores = {}
    for count in (1, 2, 3):
        prompt = Prompt(xy[:count], labels[:count])
        prediction = model.segment(features, prompt)
        scores[f"prior_J_{count}"] = jaccard(prediction.mask(), example.prior_mask)
    prior = PriorMemory().with_recording(*record(model, example.prior, features, prompt, prediction))
    tracker = Tracker(model, prior, settings)
    found, chance, present, error = [], [], [], []
    for t, (frame, mask) in enumerate(zip(example.frames, example.masks)):
        result = tracker.step(frame, t)
        score = result.scores[1]
        visible = mask.sum() > VISIBLE * mask.size
        present.append(score.lost != visible)
        if visible:
            found.append(jaccard(result.labels == 1, mask))
            things = len(np.unique(example.frame_instances[t][example.frame_instances[t] > 0]))
            chance.append(1 / max(1, things))
            error.append(abs(score.iou - found[-1]))
    return scores | {"J": found, "chance": chance, "presence": present, "iou_error": error}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", nargs="?", default="starter")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--picture", type=int, default=256, help="side of the drawn pictures, in pixels")
    parser.add_argument("--side", type=int, help="encode side, by default the model's own")
    parser.add_argument("--first-seed", type=int, default=10_000)
    parser.add_argument("--recent", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.weights, device="cpu")
    settings = TrackSettings(side=args.side, recent=args.recent, pointers=args.recent and 15)
    config = replace(scenes.SceneConfig(side=args.picture), frames=args.frames)
    started, clips = time.monotonic(), []
    for seed in range(args.first_seed, args.first_seed + args.clips):
        clips.append(
            evaluate_clip(model, scenes.make_example(config, seed), np.random.default_rng(seed), settings)
        )
    flat = {
        key: np.concatenate([clip[key] for clip in clips]) for key in ("J", "chance", "presence", "iou_error")
    }
    report = {
        "weights": str(args.weights),
        "clips": args.clips,
        "frames": args.frames,
        "seeds": [args.first_seed, args.first_seed + args.clips - 1],
        "encode_side": args.side or model.variant.image_size,
        **{
            f"prior_J_{n}_points": round(float(np.mean([c[f"prior_J_{n}"] for c in clips])), 4)
            for n in (1, 2, 3)
        },
        "prior_J": round(float(np.mean([c[f"prior_J_{n}"] for c in clips for n in (1, 2, 3)])), 4),
        "track_J_visible": round(float(flat["J"].mean()), 4),
        "track_J_visible_by_clip": round(float(np.mean([np.mean(c["J"]) for c in clips if c["J"]])), 4),
        "picking_at_random_J": round(float(flat["chance"].mean()), 4),
        "right_object": round(float((flat["J"] > 0.3).mean()), 4),
        "presence_right": round(float(flat["presence"].mean()), 4),
        "iou_error": round(float(flat["iou_error"].mean()), 4),
        "visible_frames": len(flat["J"]),
        "seconds": round(time.monotonic() - started, 1),
    }
    text = json.dumps(report, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
