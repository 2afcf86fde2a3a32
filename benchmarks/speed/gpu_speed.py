"""Frames a second on one GPU: ours, Meta's own `vos_optimized` build and transformers, in turns.

    python -m benchmarks.speed.gpu_speed --meta DIR --peers PYTHON --transformers [--models tiny large base_plus small]

For each size at 1024: one prior, six recent memories, fifteen pointers, random weights. All compute in bfloat16, ours
as `load_model(..., dtype="auto")` has it: as it is, with CUDA graphs alone, and as `compile_model` makes it; Meta's
under its autocast, compiled as `build_sam2_video_predictor(..., vos_optimized=True)` compiles it, and plain. With
`--aten` also Meta's build without the search for faster products, which takes minutes a size.

All implementations of all sizes start at once and do their first frames side by side, which is when they compile;
the first size has precedence. Then they take turns, size by size, alone on the machine. Who is not ready when
`--limit` seconds have passed is left out. The report is written anew after each size.

Printed are medians, ratios within a turn, and the peak of the GPU's memory after `--turns` frames and after
`--long` frames, which must be the same. `python -m pytest -m gpu` runs the tests that need a GPU.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.turns import (
    Figures,
    Peer,
    middle,
    random_weights,
    ratios,
    side_by_side,
    spread,
    take_turns,
    write,
)

SIZES = ("tiny", "large", "base_plus", "small")
WARM_UP = 40  # frames: memory fills, shapes settle, everything is compiled
# in MiB: in use at most; with what torch keeps for later; not on the GPU
MEMORY = ("gpu_peak", "gpu_taken", "rss")
# the products that Meta's build takes are those that torch takes unasked
ATEN = {
    "TORCHINDUCTOR_MAX_AUTOTUNE_GEMM_BACKENDS": "ATEN",
    "TORCHINDUCTOR_MAX_AUTOTUNE_CONV_BACKENDS": "ATEN",
}


def start(size: str, weights: Path, rank: int, args: argparse.Namespace) -> list[Peer]:
    """Start all implementations of a size; the first of the sizes has the processor before the second."""
    model = f"sam2.1_hiera_{size}"
    most = args.warm_up + args.turns + args.long + 4
    common = ["--model", model, "--weights", random_weights(model, weights)]
    common += ["--device", args.device, "--dtype", args.dtype]
    common += ["--threads", args.threads, "--most", most, "--no-stages"]
    common += ["--side", args.side] if args.side else []

    def peer(name: str, kind: str, *also: object, **environment: str) -> Peer:
        python = sys.executable if kind == "ours" else args.peers
        label = f"{size} {name}".replace(" ", "_")
        log = args.logs and args.logs / f"{label}.log"
        # a cache of its own: one that is killed may leave half a file
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(weights.parent / label)
        return Peer(
            name, python, "frame_peer.py", kind, *common, *also,
            log=log, nice=min(19, 5 * rank), environment=environment,
        )  # fmt: skip

    peers = [peer("ours", "ours"), peer("ours compiled", "ours", "--optimized")]
    if args.device.startswith("cuda"):
        peers.append(peer("ours graphs", "ours", "--optimized", "--graphs-only"))
    if args.meta:
        there = ("meta", "--checkout", args.meta)
        peers.append(peer("meta", *there))
        peers.append(peer("meta vos_optimized", *there, "--optimized"))
        if args.aten:
            peers.append(peer("meta vos_optimized aten", *there, "--optimized", **ATEN))
    if args.transformers:
        peers.append(peer("transformers", "transformers"))
    return peers


def compare(peers: Sequence[Peer], args: argparse.Namespace) -> dict[str, Any]:
    """Return what a frame of one size takes, and what it leaves in memory."""
    rows = take_turns(peers, "frame", args.turns, 1, quiet=True)
    later = {peer.name: figures for peer, figures in side_by_side(peers, "frame", args.long).items()}
    report: dict[str, Any] = {"peers": {}, "times as fast": {}, "memory of": {}}
    for name, figures in rows.items():
        wall = middle(figures, "wall")
        told = {"frames/s": 1000 / wall, "wall": wall, "cpu": middle(figures, "cpu")}
        for kind in [kind for kind in MEMORY if kind in figures[0]]:
            told[kind] = largest(figures, kind)
            told[f"{kind} later"] = largest(later.get(name, []), kind)
        told["video"] = figures[0].get("video", 0.0)
        report["peers"][name] = {kind: round(value, 2) for kind, value in told.items()}
        print(f"{name:24}", "  ".join(f"{kind} {value:.1f}" for kind, value in told.items()))
    for own in [name for name in rows if name.startswith("ours")]:
        for base in [name for name in rows if name != own]:
            faster = [1 / value for value in ratios(rows, own, base, "wall")]
            report["times as fast"][f"{own} as {base}"] = spread(faster)
            share, bare = share_of(report["peers"][own], report["peers"][base])
            report["memory of"][f"{own} of {base}"] = [round(share, 3), round(bare, 3)]
            print(f"{own} is {spread(faster, 2)} times as fast as {base}", end=", ")
            print(f"in {share:.2f} of its memory, {bare:.2f} without its video")
    return report


def share_of(own: dict[str, float], base: dict[str, float]) -> tuple[float, float]:
    """Return which share of another's memory one takes, with and without the frames that the other keeps there."""
    kind = next(kind for kind in MEMORY if kind in own)
    return own[kind] / base[kind], own[kind] / (base[kind] - base["video"])


def largest(figures: Sequence[Figures], kind: str) -> float:
    return max((one[kind] for one in figures), default=math.nan)


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--meta", type=Path, help="checkout of facebookresearch/sam2")
    parser.add_argument(
        "--aten", action="store_true", help="Meta's build also without searching for products"
    )
    parser.add_argument("--peers", default=sys.executable, help="a Python that has what the others need")
    parser.add_argument("--transformers", action="store_true")
    parser.add_argument("--models", nargs="*", default=SIZES, choices=SIZES)
    parser.add_argument(
        "--device", default="cuda", help="cpu tries the program out; its figures mean nothing"
    )
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--side", type=int)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=WARM_UP)
    parser.add_argument("--long", type=int, default=200, help="more frames, before memory is looked at again")
    parser.add_argument(
        "--limit", type=float, default=math.inf, help="seconds from the start until the turns"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--logs", type=Path, help="folder for what each implementation prints")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("This machine, or its torch, has no CUDA device.")
    if args.logs:
        args.logs.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {}
    peers: dict[str, list[Peer]] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            for rank, size in enumerate(args.models):
                peers[size] = start(size, Path(folder) / f"{size}.pt", rank, args)
            everyone = [peer for some in peers.values() for peer in some]
            ready = side_by_side(everyone, "frame", args.warm_up, began + args.limit)
            print(
                f"after {time.monotonic() - began:.0f} s {len(ready)} of {len(everyone)} are ready",
                flush=True,
            )
            for size, some in peers.items():
                print(f"\n{size}")
                left_out = {peer.name: peer.code for peer in some if peer not in ready}
                report[size] = {"left out": left_out}
                for name, code in left_out.items():
                    print(f"{name} is left out:", "not ready in time" if code == -9 else f"ended with {code}")
                try:
                    report[size] |= compare([peer for peer in some if peer in ready], args)
                except SystemExit as error:  # one ended: the next size is measured all the same
                    print(error)
                    report[size]["ended"] = str(error)
                print(f"after {time.monotonic() - began:.0f} s", flush=True)
                write(args.out, "gpu", report=report)
        finally:
            for peer in (peer for some in peers.values() for peer in some):
                peer.kill()
                peer.stop()


if __name__ == "__main__":
    main()
