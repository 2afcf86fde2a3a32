"""Frames of the same video by the same weights in several implementations, in turns: A B C A B C ...

    python benchmarks/speed.py --meta DIR [--meta-python PYTHON] [--transformers PYTHON] [--side 512] [--frames 5]

Random weights under SAM 2.1 tiny's official names; one prior, six recent memories. Each implementation runs
in a process of its own; with as many frames as are needed for its memory to be full before the first is timed.
Prints the median of the ratios to the first of the others, with its quartiles, and writes JSON.
`--meta` is a checkout of github.com/facebookresearch/sam2, `--transformers` a Python that has transformers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
WARM_UP = 7  # frames until six recent memories are there


class Peer:
    """A process that tracks a frame when told to."""

    def __init__(self, name: str, python: str, *arguments: object) -> None:
        self.name, self.figures = name, []
        self._process = subprocess.Popen(
            [python, str(HERE / "speed_peer.py"), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if not os.environ.get("SHOW") else None,
            text=True,
            bufsize=1,
        )

    def wait_until_ready(self) -> None:
        line = self._process.stdout.readline()
        if line.strip() != "ready":
            raise SystemExit(f"{self.name} did not start; run with SHOW=1 in the environment to see why.")

    def step(self) -> dict[str, float]:
        self._process.stdin.write("step\n")
        return json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.stdin.write("stop\n")
        self._process.stdin.close()
        self._process.wait()


def random_weights(path: Path) -> None:
    from napari_samexp.sam.loading import build
    from napari_samexp.sam.variants import VARIANTS

    torch.manual_seed(0)
    model = build(VARIANTS["sam2.1_hiera_tiny"])
    state = {key: torch.randn(value.shape) * 0.02 for key, value in model.state_dict().items()}
    for key in state:
        if "norm" in key and key.endswith("weight"):
            state[key] += 1
    torch.save({"model": state}, path)


def summary(values: list[float]) -> str:
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--meta", type=Path, help="checkout of Meta's repository")
    parser.add_argument("--meta-python", default=sys.executable)
    parser.add_argument("--transformers", help="a Python that has transformers")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=OPTIONS",
        help="ours once more with other options, such as fast='--dtype bfloat16'",
    )
    parser.add_argument("--side", type=int)
    parser.add_argument("--labels", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    common = ["--labels", args.labels, "--threads", args.threads, "--most", WARM_UP + args.frames + 3]
    side = ["--side", args.side] if args.side else []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "sam2.1_hiera_tiny.pt"
        random_weights(weights)
        peers = [Peer("ours", sys.executable, "ours", "--weights", weights, *common, *side)]
        for extra in args.also:
            name, _, options = extra.partition("=")
            peers.append(
                Peer(name, sys.executable, "ours", "--weights", weights, *common, *side, *options.split())
            )
        if args.meta:
            peers.append(
                Peer(
                    "meta",
                    args.meta_python,
                    "meta",
                    "--weights",
                    weights,
                    "--checkout",
                    args.meta,
                    *common,
                    *side,
                )
            )
        if args.transformers:
            peers.append(Peer("transformers", args.transformers, "transformers", *common))
        for peer in peers:
            peer.wait_until_ready()
        for turn in range(WARM_UP + args.frames):
            for peer in peers:
                figures = peer.step()
                if turn >= WARM_UP:
                    peer.figures.append(figures)
            print(f"turn {turn + 1} of {WARM_UP + args.frames}", file=sys.stderr)
        for peer in peers:
            peer.stop()
    report = {}
    for peer in peers:
        row = {kind: [frame[kind] for frame in peer.figures] for kind in ("wall", "cpu", "peak")}
        report[peer.name] = row
        print(
            f"{peer.name:14} wall {np.median(row['wall']):7.0f} ms  CPU {np.median(row['cpu']):7.0f} ms  "
            f"peak {max(row['peak']):6.0f} MiB"
        )
    for base in [peer.name for peer in peers if peer.name != "ours"]:
        for kind in ("wall", "cpu"):
            ratios = [a / b for a, b in zip(report["ours"][kind], report[base][kind])]
            print(f"ours / {base}, {kind}: {summary(ratios)}")
    print("load", os.getloadavg())
    if args.out:
        args.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
