"""Peak memory of tracking: ours, Meta's and transformers', after a shorter and a longer stretch of video.

    python -m benchmarks.speed.memory [--meta DIR] [--peers PYTHON] [--transformers] [--frames 20 60] [--side 1024]

Each implementation is a process of its own with SAM 2.1 tiny in float32. Meta's and transformers' loaders take a
whole video before the first frame, which is what their users have; ours decodes as it goes. So each runs once for
every length, with as many frames as that. Printed are peaks, ratios at equal length, and what a frame more costs.
`benchmarks/feel/soak.py` is the same of ours alone with real files and 20,000 frames.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.speed.turns import Peer, random_weights, running, write


def peak(name: str, python: str, arguments: list[object], frames: int) -> float:
    """Return the peak of an implementation that tracks so many frames, in MiB."""
    peer = Peer(name, python, "frame_peer.py", *arguments, "--most", frames + 2, "--no-stages")
    with running([peer]):
        return max(float(peer.do("frame")["peak"]) for _ in range(frames))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--meta", type=Path, help="checkout of facebookresearch/sam2")
    parser.add_argument("--peers", default=sys.executable, help="a Python that has what the others need")
    parser.add_argument("--transformers", action="store_true", help="also transformers, at its own side")
    parser.add_argument("--side", type=int)
    parser.add_argument("--labels", type=int, default=1)
    parser.add_argument("--frames", type=int, nargs=2, default=(20, 60))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights("sam2.1_hiera_tiny", Path(folder) / "tiny.pt")
        common: list[object] = ["--weights", weights, "--threads", args.threads, "--labels", args.labels]
        side: list[object] = ["--side", args.side] if args.side else []
        kinds = {"ours": (sys.executable, ["ours", *common, *side])}
        kinds["fast"] = (sys.executable, ["ours", *common, *side, "--dtype", "bfloat16"])
        if args.meta:
            kinds["meta"] = (args.peers, ["meta", *common, *side, "--checkout", args.meta])
        if args.transformers:
            kinds["transformers"] = (args.peers, ["transformers", *common])
        for name, (python, arguments) in kinds.items():
            peaks = [peak(name, python, arguments, frames) for frames in args.frames]
            each = (peaks[1] - peaks[0]) / (args.frames[1] - args.frames[0])
            report[name] = {
                "frames": list(args.frames),
                "peak MiB": [round(value) for value in peaks],
                "MiB a frame": round(each, 2),
            }
            print(
                f"{name:14} peak {peaks[0]:6.0f} MiB for {args.frames[0]} frames, {peaks[1]:6.0f} for {args.frames[1]}: {each:+.2f} a frame",
                flush=True,
            )
        for base in [name for name in report if name not in ("ours", "fast")]:
            for name in ("ours", "fast"):
                values = [a / b for a, b in zip(report[name]["peak MiB"], report[base]["peak MiB"])]
                report[name][f"of {base}"] = [round(value, 3) for value in values]
                print(f"{name} / {base}: {values[0]:.3f} and {values[1]:.3f}")
    print("load", os.getloadavg())
    write(args.out, "memory", report=report)


if __name__ == "__main__":
    main()
