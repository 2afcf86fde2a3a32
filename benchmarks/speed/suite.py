"""All benchmarks of speed and memory, one after the other: ``make bench``.

    python -m benchmarks.speed.suite --peers PYTHON [--meta DIR] [--sam1 DIR] [--only frame memory ...] [--quick]

Each part is a script of its own, run in its own process; its JSON goes to `--out`, and the charts of all to
`--plots`. Parts: frame, frame512, labels, memory, image, load, scaling, gpu (where there is one).
`--quick` takes small sides and few turns: a try of the program, whose figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.turns import ROOT

OUT = ROOT / "benchmarks" / "out"
PARTS = ("frame", "frame512", "labels", "memory", "image", "load", "scaling", "gpu")


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command line of each part, without Python and the output."""

    def options(text: str, quick: str = "") -> list[str]:
        return (quick if args.quick and quick else text).split()

    meta = ["--meta", str(args.meta)] if args.meta else []
    sam1 = ["--sam1", str(args.sam1)] if args.sam1 else []
    peers = ["--peers", str(args.peers), *meta]
    other = [] if args.quick else ["--transformers"]
    turns = options(f"--threads {args.threads} --turns {1 if args.quick else args.turns}")
    side = ["--side", "128"] if args.quick else []
    fast = ["--also", "fast=--dtype bfloat16"]
    smaller = options("--ours-side 512", "--ours-side 64")  # than the others' 1024
    large = options("sam2.1_hiera_large sam_vit_h", "sam2.1_hiera_tiny")
    curves = options("--turns 3", "--turns 1 --base-side 64 --sides 64 128 --frames 40 --frames-side 64")
    return {
        "frame": ["frame_speed", *peers, *other, *turns, *side, *fast],
        "frame512": ["frame_speed", *peers, *turns, *side, *smaller, *fast],
        "labels": ["frame_speed", *peers, *turns, *side, "--labels", "10"],
        "memory": ["memory", *peers, *other, *side, *options("--frames 20 60", "--frames 3 6")],
        "image": ["image_speed", *peers, *sam1, *other, *turns, *options("--only work --bfloat16"), *side],
        "load": ["image_speed", *peers, *sam1, *turns, *options("--only load --load"), *large],
        "scaling": ["scaling", *curves, "--plots", str(args.plots)],
        "gpu": ["gpu_speed", *peers, *other],
    }


def run(name: str, command: list[str], out: Path) -> bool:
    """Run a part; return whether it came to its end."""
    print(f"\n==== {name}: python -m benchmarks.speed.{' '.join(command)}", flush=True)
    report = out / f"{name}.json"
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.speed.{command[0]}", *command[1:], "--out", str(report)],
        check=False,
    )
    return done.returncode == 0


def chart(out: Path, plots: Path) -> None:
    """Draw the frame of every implementation by stage, from the reports that are there."""
    import numpy as np

    from napari_samexp.render.charts import heat_map
    from napari_samexp.render.overlay import write_png

    rows: dict[str, dict[str, Any]] = {}
    for name in ("frame", "frame512"):
        path = out / f"{name}.json"
        if path.exists():
            medians = json.loads(path.read_text("utf-8"))["report"]["medians"]
            for peer, found in medians.items():
                if peer not in rows or (name == "frame512" and peer in ("ours", "fast")):
                    rows[peer if name == "frame" else f"{peer} at 512"] = found
    base = rows.get("meta") or rows.get("transformers")
    if not rows or base is None:
        return
    kinds = ("wall", "cpu", "peak")
    values = np.array([[found[kind] / base[kind] for kind in kinds] for found in rows.values()])
    title = "A frame at 1024, and peak memory, relative to " + (
        "Meta's" if "meta" in rows else "transformers'"
    )
    image = heat_map(values, list(rows), ["wall time", "CPU time", "memory"], title=title, limits=(0.0, 1.2))
    plots.mkdir(parents=True, exist_ok=True)
    write_png(plots / "bench-implementations.png", image)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default=sys.executable, help="a Python that has what the others need")
    parser.add_argument("--meta", type=Path, help="checkout of facebookresearch/sam2")
    parser.add_argument("--sam1", type=Path, help="checkout of facebookresearch/segment-anything")
    parser.add_argument("--only", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--plots", type=Path, default=OUT)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    parts = [name for name in args.only if name != "gpu" or torch.cuda.is_available()]
    failed = [name for name in parts if not run(name, commands(args)[name], args.out)]
    chart(args.out, args.plots)
    if failed:
        raise SystemExit(f"These parts did not come to their end: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
