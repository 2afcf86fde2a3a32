"""What an image takes: encoding, a click's masks, and loading a model; ours, Meta's and transformers' in turns.

    python -m benchmarks.speed.image_speed [--sam1 DIR] [--meta DIR] [--peers PYTHON] [--threads 2] [--turns 5]
    python -m benchmarks.speed.image_speed --only load --load sam2.1_hiera_large sam_vit_h

`--sam1` and `--meta` are checkouts of facebookresearch/segment-anything and facebookresearch/sam2; `--peers` is a
Python that has what those import, and transformers (`make benchmarks/.peers` makes one). Random weights.
Loading is of files that lie in the system's cache, against reading the same file into memory; each
load is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.speed.turns import HERE, ROOT, Peer, random_weights, running, show, take_turns, write

MODELS = ("sam_vit_b", "sam2.1_hiera_tiny")


def work(model: str, weights: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return what encoding and clicking take with one model."""
    common = ["--model", model, "--weights", weights, "--threads", args.threads]
    common += ["--side", args.side] if args.side else []
    checkout = args.sam1 if model.startswith("sam_") else args.meta
    peers = [Peer("ours", sys.executable, "image_peer.py", "ours", *common)]
    if args.bfloat16:
        peers.append(
            Peer("ours bfloat16", sys.executable, "image_peer.py", "ours", *common, "--dtype", "bfloat16")
        )
    if checkout:
        peers.append(Peer("meta", args.peers, "image_peer.py", "meta", *common, "--checkout", checkout))
    if args.transformers:
        peers.append(Peer("transformers", args.peers, "image_peer.py", "transformers", *common))
    with running(peers):
        found = {
            "encode": take_turns(peers, "encode", args.turns),
            "click": take_turns(peers, "click", 10 * args.turns, 3, quiet=True),
        }
    report = {}
    for job, rows in found.items():
        print(f"\n{model}, {job}")
        report[job] = show(rows, [name for name in rows if name.startswith("ours")])
    return report


def loading(model: str, weights: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return what loading a file takes, against reading it."""
    checkout = args.sam1 if model.startswith("sam_") else args.meta
    kinds = {"ours": (sys.executable, "ours", "load"), "read": (sys.executable, "ours", "read")}
    if checkout and args.load_meta:
        kinds["meta"] = (args.peers, "meta", "load")
    rows: dict[str, list[Any]] = {name: [] for name in kinds}
    for turn in range(1 + args.turns):
        for name, (python, peer, what) in kinds.items():
            command = [
                python,
                "-P",
                HERE / "image_peer.py",
                peer,
                "--model",
                model,
                "--weights",
                weights,
                "--load",
                what,
                "--threads",
                args.threads,
            ]
            command += ["--checkout", checkout] if checkout else []
            run = subprocess.run(
                [str(part) for part in command],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            if turn:  # the first fills the cache
                rows[name].append(json.loads(run.stdout.splitlines()[-1]))
    print(f"\n{model}, load ({weights.stat().st_size / 1e6:.0f} MB)")
    return show(rows, ["ours"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sam1", type=Path, help="checkout of facebookresearch/segment-anything")
    parser.add_argument("--meta", type=Path, help="checkout of facebookresearch/sam2")
    parser.add_argument("--peers", default=sys.executable, help="a Python that has what the others need")
    parser.add_argument("--transformers", action="store_true", help="also transformers")
    parser.add_argument("--bfloat16", action="store_true", help="also ours in bfloat16")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--load", nargs="*", default=["sam2.1_hiera_large"], help="models to load")
    parser.add_argument("--load-meta", action="store_true", help="also let Meta's code load them")
    parser.add_argument("--only", choices=("work", "load"))
    parser.add_argument("--side", type=int, help="for ours; the others keep their own")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    report: dict[str, Any] = {"work": {}, "load": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models if args.only != "load" else ():
            report["work"][name] = work(name, random_weights(name, Path(folder) / f"{name}.pt"), args)
        for name in args.load if args.only != "work" else ():
            weights = random_weights(name, Path(folder) / f"{name}.pt")
            report["load"][name] = loading(name, weights, args)
            weights.unlink()
    write(args.out, "image", **report)


if __name__ == "__main__":
    main()
