"""Measure a checkpoint on held-out scenes and real coins, through the same calls that users make.

For each clip the prior image is segmented from one to three points: the first somewhere in the middle of
the object, each further one in the middle of the largest error. The last prediction is recorded, and the
clip is tracked with that prior alone. J is intersection over union. Then the same with objects of outlines,
and of patterns, that training never draws, and with objects that something hides on purpose; then the speed;
then scikit-image's coins, one click a coin, and its cell, a click in each of several places.

visible: more than 0.03 % of the frame shows the object; presence is counted there and where nothing of it shows
right object: where something was found among other things, the thing that the mask overlaps most is the object
mean error of the predicted IoU: over the visible frames; where the object was called lost, its mask is empty
recovery: of the times the object is back after it was out of sight altogether and then stays for three frames
or more, those in which one of the first five frames has a J of at least 0.5; those of the hidden objects count
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_samexp.sam import load_model
from napari_samexp.tracking import TrackSettings
from training import scenes
from training.measure import Measured, measure, speed
from training.real_images import measure_real
from training.tell_apart import told_apart

HIDDEN_SEEDS = 50_000  # added to the first seed where objects are hidden on purpose
TARGETS = {
    "one-point J": 0.85,
    "three-point J": 0.90,
    "tracked J, visible": 0.80,
    "tracked J, visible, kept-out shapes": 0.70,
    "tracked J, visible, kept-out textures": 0.70,
    "presence right": 0.95,
    "right object among others": 0.95,
    "recovery after full occlusion": 0.85,
    "predicted IoU, mean error": 0.10,
    "coins, one-click J": 0.75,
    "cell, one-click J": 0.75,
    "frames/s, one label": 8.0,
    "encode, ms": 60.0,
}
SMALLER_IS_BETTER = ("predicted IoU, mean error", "encode, ms")


Figures = dict[str, float | None]


def mean(values: list[Any]) -> float | None:
    """Return the mean of what counts, None if nothing does."""
    return round(float(np.mean(values)), 4) if values else None


def table(figures: Figures) -> str:
    """Return the figures as lines of text, with the aim of each that has one."""
    lines = []
    for name, value in figures.items():
        shown = "-" if value is None else f"{value:.3f}"
        aim = TARGETS.get(name)
        if aim is None or value is None:
            lines.append(f"{name:42} {shown:>8}")
            continue
        reached = value <= aim if name in SMALLER_IS_BETTER else value >= aim
        sign = "<=" if name in SMALLER_IS_BETTER else ">="
        lines.append(f"{name:42} {shown:>8}   {sign} {aim:g} {'reached' if reached else 'missed'}")
    return "\n".join(lines)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("weights", nargs="?", default="starter")
    option("--clips", type=int, default=300)
    option("--kept-out-clips", type=int, help="of each kept-out family; by default a third of the clips")
    option(
        "--hidden-clips", type=int, help="where something hides the object; by default a third of the clips"
    )
    option("--frames", type=int, default=24)
    option("--image", type=int, default=256, help="side of the drawn images, in pixels")
    option("--side", type=int, help="encode side, by default the model's own")
    option("--first-seed", type=int, default=10_000)
    option("--recent", type=int, default=6)
    option("--pairs", type=int, default=60, help="of each kind, whose things features tell apart; 0 for none")
    option("--threads", type=int, default=2)
    option("--workers", type=int, default=1, help="processes, each with one thread")
    option("--no-speed", action="store_true")
    option("--no-real", action="store_true", help="leave out scikit-image's images")
    option("--out", type=Path, help="also write the figures as JSON")
    return parser.parse_args(words)


def evaluate(args: argparse.Namespace) -> Figures:
    """Return all figures by name."""
    torch.set_num_threads(args.threads)
    figures = clip_figures(args)
    if args.pairs:
        figures |= told_apart(args.weights, args.pairs, args.side)
    if not args.no_real:
        real = measure_real(args.weights, args.side)
        figures |= {f"{name}, one-click J": mean(scores) for name, scores in real.items()}
    if not args.no_speed:
        figures["frames/s, one label"], figures["encode, ms"] = speed(args.weights, args.side or 256)
        if not args.side:  # the aims are for a side of 256, whatever the model's own is
            own = load_model(args.weights, device="cpu").variant.image_size
            figures["frames/s, own side"], figures["encode, ms, own side"] = speed(args.weights, own)
    return figures


def clip_figures(args: argparse.Namespace) -> Figures:
    """Return the figures of drawn clips."""
    settings = TrackSettings(side=args.side, recent=args.recent, pointers=15 if args.recent else 0)
    config = scenes.SceneConfig(side=args.image, frames=args.frames)
    kept_out, hidden = (args.clips // 3 if n is None else n for n in (args.kept_out_clips, args.hidden_clips))

    def measured(family: scenes.SceneConfig, count: int, more: int = 0) -> Measured:
        seeds = range(args.first_seed + more, args.first_seed + more + count)
        return measure(args.weights, family, seeds, settings, args.workers)

    plain = measured(config, args.clips)
    shapes = measured(replace(config, shapes=scenes.KEPT_OUT_SHAPES, microscopy=0.0), kept_out)
    textures = measured(replace(config, textures=scenes.KEPT_OUT_TEXTURES, microscopy=0.0), kept_out)
    returning = measured(replace(config, occlusion=1.0, hiding=1.0, absent=0.0), hidden, HIDDEN_SEEDS)
    recovered = plain.recovered + returning.recovered
    return figures_of(plain) | {
        "tracked J, visible, kept-out shapes": mean(shapes.tracked),
        "tracked J, visible, kept-out textures": mean(textures.tracked),
        "tracked J, visible, hidden objects": mean(returning.tracked),
        "recovery after full occlusion": mean(recovered),
        "times of recovery": len(recovered),
    }


def figures_of(got: Measured) -> Figures:
    """Return the figures of the clips that nothing was changed about."""
    words = {1: "one", 2: "two", 3: "three"}
    return {
        **{f"{words[count]}-point J": mean(scores) for count, scores in got.points.items()},
        "tracked J, visible": mean(got.tracked),
        **{f"tracked J, {scene} scenes": mean(scores) for scene, scores in sorted(got.by_scene.items())},
        "presence right": mean(got.seen + got.absent),
        "presence right, in sight": mean(got.seen),
        "presence right, out of sight": mean(got.absent),
        "share of frames in sight": mean([True] * len(got.seen) + [False] * len(got.absent)),
        "right object among others": mean(got.right),
        "predicted IoU, mean error": mean(got.iou_error),
    }


def main() -> None:
    """Print the figures of some weights."""
    args = parse()
    started = time.monotonic()
    figures = evaluate(args)
    print(f"{args.weights}: {args.clips} clips of {args.frames} frames, seeds from {args.first_seed}")
    print(table(figures))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{time.monotonic() - started:.0f} s; load {load:.1f}: speed counts only on an idle machine")
    if args.out:
        facts = {key: str(value) for key, value in vars(args).items()}
        args.out.write_text(json.dumps({"arguments": facts, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
