"""Frames a second on one GPU: ours, Meta's own `vos_optimized` build and transformers, in turns.

    python benchmarks/gpu_speed.py --meta DIR --peers PYTHON --transformers [--models tiny small base_plus large]

For each size at 1024: one prior, six recent memories, fifteen pointers, random weights. All compute in bfloat16, ours
as `load_model(..., dtype="auto")` has it, with `compile_model` (CUDA graphs of settled shapes) and without; Meta's
under its autocast, compiled as `build_sam2_video_predictor(..., vos_optimized=True)` compiles it, and plain.
Printed are medians, ratios within a turn, and the peak of the GPU's memory after `--turns` frames and after
`--long` frames, which must be the same. `python -m pytest -m gpu` runs the tests that need a GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from turns import Figures, Peer, random_weights, ratios, running, show, spread, take_turns, write

SIZES = ("tiny", "small", "base_plus", "large")
WARM_UP = 40  # frames: memory fills, shapes settle, everything is compiled


def compare(model: str, weights: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return what a frame of one size takes, and what it leaves in the GPU's memory."""
    most = WARM_UP + args.turns + args.long + 3
    common = ["--model", model, "--weights", weights, "--device", args.device, "--dtype", args.dtype]
    common += ["--threads", args.threads, "--most", most, "--no-stages"]
    common += ["--side", args.side] if args.side else []
    peers = [
        Peer("ours", sys.executable, "speed_peer.py", "ours", *common),
        Peer("ours compiled", sys.executable, "speed_peer.py", "ours", *common, "--optimized"),
    ]
    if args.meta:
        there = ["meta", *common, "--checkout", args.meta]
        peers.append(Peer("meta", args.peers, "speed_peer.py", *there))
        peers.append(Peer("meta vos_optimized", args.peers, "speed_peer.py", *there, "--optimized"))
    if args.transformers:
        peers.append(Peer("transformers", args.peers, "speed_peer.py", "transformers", *common))
    with running(peers):
        rows = take_turns(peers, "frame", args.turns, args.warm_up)
        after = {peer.name: _peak(rows[peer.name]) for peer in peers}
        long = take_turns(peers, "frame", args.long, 0, quiet=True)
        later = {peer.name: _peak(long[peer.name]) for peer in peers}
    print(f"\n{model}")
    report = show(rows, ["ours", "ours compiled"])
    for name, figures in rows.items():
        rate = 1000 / sorted(one["wall"] for one in figures)[len(figures) // 2]
        report["medians"][name] |= {
            "frames/s": round(rate, 2),
            "peak": after[name],
            "peak later": later[name],
        }
        print(
            f"{name:20} {rate:7.2f} frames/s   memory {after[name]:.0f} MiB, {args.long} frames later {later[name]:.0f}"
        )
    for base in [name for name in rows if not name.startswith("ours")]:
        faster = [1 / value for value in ratios(rows, "ours compiled", base, "wall")]
        print(f"ours compiled is {spread(faster, 2)} times as fast as {base}")
    return report


def _peak(figures: list[Figures]) -> float:
    """Return the largest share of the GPU's memory, or of the computer's where there is no GPU."""
    return max(one.get("gpu_peak", one["rss"]) for one in figures)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--meta", type=Path, help="checkout of facebookresearch/sam2")
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
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("This machine, or its torch, has no CUDA device.")
    report = {}
    for size in args.models:
        with tempfile.TemporaryDirectory() as folder:
            name = f"sam2.1_hiera_{size}"
            report[name] = compare(name, random_weights(name, Path(folder) / "weights.pt"), args)
    write(args.out, "gpu", report=report)


if __name__ == "__main__":
    main()
