"""Three priors on four clips, drawn: the matrix of what each finds, with its images.

    python -m docs.make_prior_matrix --out FOLDER [--frames 16] [--side 256] [--images docs/images]

Each prior is an image with one thing and a click on it. Three clips show one of the three things each, elsewhere
and among others, and the fourth shows none of them. Scenes are held-out ones of training/scenes, taken in
their order. J&F is against the thing of the clip: on the fourth it says how far a prior takes another thing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from napari_samexp.render.mp4 import write_mp4
from napari_samexp.render.overlay import write_png
from training import scenes
from training.make_sample import deepest_point

COMMAND = [sys.executable, "-P", "-m", "napari_samexp"]


def draw(out: Path, frames: int, side: int, first_seed: int, priors: int) -> None:
    """Write images, clips and ground truths, and record a click on each image."""
    config = scenes.SceneConfig(
        side=side, frames=frames, motion=0.4, unrelated=1.0, absent=0.0, microscopy=0.0, occlusion=0.0,
        distractors=(1, 2), scale=(0.25, 0.5),
    )  # fmt: skip
    (out / "truth").mkdir(parents=True, exist_ok=True)
    for number in range(priors + 1):
        example = scenes.make_example(config, first_seed + number)
        name = "other" if number == priors else f"thing{number + 1}"
        write_mp4(out / f"clip-{name}.mp4", example.frames, 12, quality=16)
        labels = example.masks.astype(np.uint8)
        tifffile.imwrite(out / "truth" / f"clip-{name}.tif", labels, photometric="minisblack")
        if number < priors:
            write_png(out / f"{name}.png", example.prior)
            x, y = deepest_point(example.prior_mask)
            record = [*COMMAND, "record", out / f"{name}.png", "--point", f"{x},{y}", "--name", name]
            subprocess.run(
                [*map(str, record), "--overwrite", "--out", str(out / f"{name}.safetensors")],
                check=True, capture_output=True,
            )  # fmt: skip


def main() -> None:
    """Draw the scenes, compare, and copy the images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--side", type=int, default=256, help="of the drawn images, in pixels")
    parser.add_argument("--first-seed", type=int, default=40)
    parser.add_argument("--priors", type=int, default=3)
    parser.add_argument("--images", type=Path, help="also put small copies of the images there")
    parser.add_argument("rest", nargs="*", help="more for `compare`, behind --, such as -- --vary recent=0-6")
    args = parser.parse_args()
    draw(args.out, args.frames, args.side, args.first_seed, args.priors)
    priors = [args.out / f"thing{n + 1}.safetensors" for n in range(args.priors)]
    clips = sorted(args.out.glob("clip-*.mp4"))
    line = [*COMMAND, "compare", *priors, "--videos", *clips, "--out", args.out / "matrix"]
    subprocess.run([*map(str, line), "--ground-truth", str(args.out / "truth"), *args.rest], check=True)
    if args.images:
        for name in ("heat_maps", "best_and_worst", "vary"):
            if (args.out / "matrix" / f"{name}.png").exists():
                small_copy(args.out / "matrix" / f"{name}.png", args.images / f"matrix-{name}.png")


def small_copy(source: Path, target: Path) -> None:
    """Write an image in few colours and at most 900 pixels wide."""
    with Image.open(source) as image:
        image.thumbnail((900, 2000))
        image.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    main()
