"""Frames of the same video by the same weights in several implementations, in turns: A B C A B C ...

    python -m benchmarks.speed.frame_speed --meta DIR --peers PYTHON --transformers [--side 512] [--threads 2] [--turns 5]

Random weights under SAM 2.1 tiny's official names; one prior, six recent memories, fifteen pointers. Each
implementation runs in a process of its own, with as many frames as are needed for its memory to be full before
the first is timed. Prints medians, the median of the ratios within a turn with its quartiles, CPU time by
stage, peak memory, and what the operations of ours alone would take at this machine's rate; `--out` writes the
same as JSON.

`--meta` is a checkout of github.com/facebookresearch/sam2; `--peers` is a Python that has what it imports, and
transformers (`make benchmarks/.peers` makes one). `--also` times ours once more with other options, which are
compared with the others as well: `--also "fast=--dtype bfloat16" --also "fast512=--dtype bfloat16 --side 512"`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.speed.frame_peer import IMAGE_HW
from benchmarks.speed.turns import Peer, random_weights, running, show, take_turns, write

WARM_UP = 7  # frames until six recent memories are there
FULL = 16  # frames until fifteen pointers are there, too


def peers(args: argparse.Namespace, weights: Path) -> list[Peer]:
    """Start everything that is compared."""
    common = ["--labels", args.labels, "--threads", args.threads, "--model", args.model]
    common += ["--weights", weights, "--most", args.warm_up + args.turns + 3]
    side = ["--side", args.side] if args.side else []
    own = ["--side", args.ours_side] if args.ours_side else side
    started = [Peer("ours", sys.executable, "frame_peer.py", "ours", *common, *own)]
    for extra in args.also:
        name, _, options = extra.partition("=")
        started.append(Peer(name, sys.executable, "frame_peer.py", "ours", *common, *own, *options.split()))
    if args.meta:
        checkout = ["--checkout", args.meta]
        started.append(Peer("meta", args.peers, "frame_peer.py", "meta", *common, *side, *checkout))
    if args.transformers:
        started.append(Peer("transformers", args.peers, "frame_peer.py", "transformers", *common))
    return started


def limit(args: argparse.Namespace, wall: float) -> dict[str, Any]:
    """Print and return what a frame's multiplications alone would take at the rate of this machine's matrix products."""
    import torch

    from napari_samexp.sam.variants import VARIANTS
    from napari_samexp.tracking.forecast import Work
    from napari_samexp.tracking.settings import TrackSettings

    torch.set_num_threads(args.threads)
    a, b = torch.randn(1024, 256), torch.randn(256, 512)
    seconds = []
    with torch.inference_mode():
        for _ in range(20):
            began = time.perf_counter()
            for _ in range(50):
                a @ b
            seconds.append((time.perf_counter() - began) / 50)
    rate = 2 * 1024 * 256 * 512 / min(seconds[1:])
    settings = TrackSettings(side=args.ours_side or args.side)
    work = Work(VARIANTS[args.model], settings, IMAGE_HW, dict.fromkeys(range(args.labels), 1))
    operations = 2 * work.multiplications(args.warm_up)
    least = 1000 * operations / rate
    print(
        f"ours takes {operations / 1e9:.0f} billion operations a frame; at {rate / 1e9:.0f} billion a second, this "
        f"machine's matrix products, they take {least:.0f} ms, {least / wall:.2f} of what was measured"
    )
    return {"operations": operations, "rate": rate, "share": least / wall}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--meta", type=Path, help="checkout of Meta's repository")
    parser.add_argument("--peers", default=sys.executable, help="a Python that has what the others need")
    parser.add_argument("--transformers", action="store_true", help="also transformers, at its own side")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=OPTIONS",
        help="ours once more with other options, such as fast='--dtype bfloat16'",
    )
    parser.add_argument("--model", default="sam2.1_hiera_tiny")
    parser.add_argument("--side", type=int)
    parser.add_argument("--ours-side", type=int, help="another side for ours")
    parser.add_argument("--labels", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--warm-up", type=int, default=WARM_UP, help=f"frames before the first; {FULL} fill the pointers"
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights(args.model, Path(folder) / "weights.pt")
        started = peers(args, weights)
        with running(started):
            rows = take_turns(started, "frame", args.turns, args.warm_up)
    others = ("meta", "transformers")
    report = show(rows, [name for name in rows if name not in others])
    least = limit(args, report["medians"]["ours"]["wall"])
    print("load", os.getloadavg())
    write(args.out, "frame", report=report, limit=least, figures=rows)


if __name__ == "__main__":
    main()
