"""Three priors on four clips, drawn: the matrix of what each finds, with its pictures.

    python benchmarks/prior_matrix.py --out FOLDER [--frames 16] [--side 128] [--first-seed 40]

Each prior is a picture with one thing and a click on it. Three clips show one of the three things each,
elsewhere and among others, and the fourth shows none of them, so that a good matrix is light along its diagonal. Scenes are held-out
ones of training/scenes.py. True labels are written beside, and the matrix has J&F against the thing of its own
clip.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "training"))

import make_sample  # noqa: E402
import scenes  # noqa: E402

from napari_samexp.io.mp4 import write_mp4  # noqa: E402
from napari_samexp.io.overlay import write_png  # noqa: E402

COMMAND = [sys.executable, "-m", "napari_samexp"]


def draw(out: Path, frames: int, side: int, first_seed: int, priors: int) -> None:
    """Write pictures, clips and truths, and record a click on each picture."""
    config = scenes.SceneConfig(
        side=side, frames=frames, motion=0.4, unrelated=1.0, absent=0.0, microscopy=0.0, occlusion=0.0,
        distractors=(1, 2), scale=(0.25, 0.5),
    )  # fmt: skip
    (out / "truth").mkdir(parents=True, exist_ok=True)
    for number in range(priors + 1):
        example = scenes.make_example(config, first_seed + number)
        name = "none" if number == priors else f"thing{number + 1}"
        write_mp4(out / f"clip-{name}.mp4", example.frames, 12, quality=16)
        labels = example.masks.astype(np.uint8)
        tifffile.imwrite(out / "truth" / f"clip-{name}.tif", labels, photometric="minisblack")
        if number < priors:
            write_png(out / f"{name}.png", example.prior)
            x, y = make_sample.clicks(example.prior_mask, 1)[0]
            record = [*COMMAND, "record", out / f"{name}.png", "--point", f"{x},{y}", "--name", name]
            subprocess.run(
                [*map(str, record), "--overwrite", "--out", str(out / f"{name}.safetensors")],
                check=True, capture_output=True,
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--side", type=int, default=256, help="of the drawn pictures, in pixels")
    parser.add_argument("--first-seed", type=int, default=40)
    parser.add_argument("--priors", type=int, default=3)
    parser.add_argument("rest", nargs="*", help="more for `compare`, behind --, such as -- --vary recent=0-6")
    args = parser.parse_args()
    draw(args.out, args.frames, args.side, args.first_seed, args.priors)
    priors = [args.out / f"thing{n + 1}.safetensors" for n in range(args.priors)]
    clips = sorted(args.out.glob("clip-*.mp4"))
    line = [*COMMAND, "compare", *priors, "--videos", *clips, "--out", args.out / "matrix"]
    subprocess.run([*map(str, line), "--truth", str(args.out / "truth"), *args.rest], check=True)


if __name__ == "__main__":
    main()
