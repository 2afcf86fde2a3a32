"""Draw the bundled sample: a prior image with a click, a clip as a real MP4, and the ground truth of both.

    python -m training.make_sample [--seed 33] [--out FOLDER]

The seed is a held-out one, so the starter has never seen the scene. The click is at the point deepest inside the
object.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from napari_samexp.render.mp4 import write_mp4
from napari_samexp.render.overlay import write_png
from training import scenes

PACKAGE = Path(__file__).parents[1] / "src" / "napari_samexp" / "samples"
FPS = 12
LARGEST = 1_500_000  # bytes, all files together


CONFIG = scenes.SceneConfig(side=256, frames=48, motion=0.4, unrelated=1.0, absent=0.0, microscopy=0.0)


def deepest_point(mask: np.ndarray) -> tuple[int, int]:
    """Return the point (x, y) deepest inside a mask, in chessboard and city-block steps in turn."""
    depth = np.zeros(mask.shape, int)
    inside, crosses = np.pad(mask, 1), True
    while inside.any():
        depth += inside[1:-1, 1:-1]
        # in turn, the eroding shape is an octagon, which is nearly a disc
        inside = ndimage.binary_erosion(inside, ndimage.generate_binary_structure(2, 1 if crosses else 2))
        crosses = not crosses
    y, x = np.unravel_index(depth.argmax(), mask.shape)
    return int(x), int(y)


def write(folder: Path, example: scenes.Example, facts: dict[str, Any]) -> int:
    """Write the sample's files; return how many bytes they take."""
    folder.mkdir(parents=True, exist_ok=True)
    write_png(folder / "prior.png", example.prior)
    write_mp4(folder / "clip.mp4", example.frames, FPS, quality=18)
    Image.fromarray(example.prior_mask).save(folder / "prior_mask.png", optimize=True)
    column = example.masks.reshape(-1, example.masks.shape[2])
    Image.fromarray(column).save(folder / "truth.png", optimize=True)
    (folder / "sample.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    names = ("prior.png", "clip.mp4", "prior_mask.png", "truth.png", "sample.json")
    return sum((folder / name).stat().st_size for name in names)


def main(words: list[str] | None = None) -> None:
    """Draw the sample as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=33)
    parser.add_argument("--out", type=Path, default=PACKAGE)
    args = parser.parse_args(words)
    held_out = scenes.HELD_OUT_SEEDS
    if args.seed not in held_out:
        parser.error(f"the seed must be held out, {held_out.start} to {held_out.stop - 1}, not {args.seed}")
    example = scenes.make_example(CONFIG, args.seed)
    point = deepest_point(example.prior_mask)
    facts = {
        "made_by": "training/make_sample.py",
        "seed": args.seed,
        "config": asdict(CONFIG),
        "frames": CONFIG.frames,
        "fps": FPS,
        "points_xy": [point],
        "point_labels": [1],
    }
    size = write(args.out, example, facts)
    share = float((example.masks.mean(axis=(1, 2)) > 0.001).mean())
    print(f"{args.out}: seed {args.seed}, click {point}, visible in {share:.0%}, {size / 1e6:.2f} MB")
    if size > LARGEST:
        raise SystemExit(f"the files take {size} bytes, more than {LARGEST}; choose another seed")


if __name__ == "__main__":
    main()
