"""Draw the bundled sample: a prior picture with clicks, a clip as a real MP4, and the truth of both.

    python training/make_sample.py [--seed 33] [--clicks 1] [--out src/napari_samexp/samples]

The seed is a held-out one, so the starter has never seen the scene. A click is put at the point deepest
inside the object; a second one at the point deepest in what is left around the first.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import scenes
from PIL import Image

from napari_samexp.io.mp4 import write_mp4
from napari_samexp.io.overlay import write_png

PACKAGE = Path(__file__).parents[1] / "src" / "napari_samexp" / "samples"
FPS = 12
LARGEST = 1_500_000  # bytes, all files together


def depth(mask: np.ndarray) -> np.ndarray:
    """Return how many pixels each one of a mask is away from the outside."""
    inside, total, turn = np.pad(mask, 1), np.zeros(mask.shape, int), 0
    while inside.any():
        total += inside[1:-1, 1:-1]
        near = [inside[1:-1, 1:-1], inside[:-2, 1:-1], inside[2:, 1:-1], inside[1:-1, :-2], inside[1:-1, 2:]]
        if turn:  # in turn, the eroding shape is an octagon, which is nearly a disc
            near += [inside[:-2, :-2], inside[:-2, 2:], inside[2:, :-2], inside[2:, 2:]]
        inside, turn = np.pad(np.logical_and.reduce(near), 1), 1 - turn
    return total


def clicks(mask: np.ndarray, count: int) -> list[list[int]]:
    """Return (x, y) points deep inside a mask, apart from one another."""
    left, points = mask.copy(), []
    rows, columns = np.indices(mask.shape)
    for _ in range(count):
        how_deep = depth(left)
        y, x = (int(v) for v in np.unravel_index(how_deep.argmax(), mask.shape))
        points.append([x, y])
        left &= np.hypot(rows - y, columns - x) > 2 * how_deep[y, x]
        if not left.any():
            break
    return points


def write(folder: Path, example: scenes.Example, facts: dict) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    write_png(folder / "prior.png", example.prior)
    write_mp4(folder / "clip.mp4", example.frames, FPS, quality=18)
    Image.fromarray(example.prior_mask).save(folder / "prior_mask.png", optimize=True)
    Image.fromarray(example.masks.reshape(-1, example.masks.shape[2])).save(
        folder / "truth.png", optimize=True
    )
    (folder / "sample.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    names = ("prior.png", "clip.mp4", "prior_mask.png", "truth.png", "sample.json")
    return sum((folder / name).stat().st_size for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=33)
    parser.add_argument("--clicks", type=int, default=1, choices=(1, 2))
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--motion", type=float, default=0.4)
    parser.add_argument("--out", type=Path, default=PACKAGE)
    parser.add_argument("--sheet", type=Path, help="also write a sheet of the scene with its truth outlined")
    args = parser.parse_args()
    if args.seed not in scenes.HELD_OUT_SEEDS:
        parser.error(
            f"the seed must be held out, {scenes.HELD_OUT_SEEDS.start} to {scenes.HELD_OUT_SEEDS.stop - 1}"
        )
    config = scenes.SceneConfig(
        side=args.side, frames=args.frames, motion=args.motion, unrelated=1.0, absent=0.0, microscopy=0.0
    )
    example = scenes.make_example(config, args.seed)
    points = clicks(example.prior_mask, args.clicks)
    facts = {
        "made_by": "training/make_sample.py",
        "seed": args.seed,
        "config": asdict(config),
        "frames": args.frames,
        "fps": FPS,
        "points_xy": points,
        "point_labels": [1] * len(points),
    }
    size = write(args.out, example, facts)
    if args.sheet:
        step = max(1, args.frames // 12)
        few = replace(
            example,
            frames=example.frames[::step],
            masks=example.masks[::step],
            frame_instances=example.frame_instances[::step],
        )
        write_png(args.sheet, scenes.render_sheet([few]))
    share = float((example.masks.mean(axis=(1, 2)) > 0.001).mean())
    print(f"{args.out}: seed {args.seed}, clicks {points}, visible in {share:.0%}, {size / 1e6:.2f} MB")
    if size > LARGEST:
        raise SystemExit(f"the files take {size} bytes, more than {LARGEST}; choose another seed")


if __name__ == "__main__":
    main()
