"""Kill the model's process, the command line, batches and napari itself at random moments, and look what is lost.

    python -m tests.kill.kills [--worker 36] [--cli 34] [--batch 10] [--napari 20] [--frames 24] [--seed 0]

Every kill is a SIGKILL. After each, what was told of as finished has to be on disk: frames with the labels and scores
of a run that nobody disturbed, recorded prompts, whole files; nothing may be orphaned; and the work has to go on to
the same labels, bit for bit. Printed is how often who was killed over what, how often each promise was looked at,
and every time that one was broken. The exit status is 1 if any was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.kill.checks import Tally
from tests.kill.cli import kill_batches, kill_commands
from tests.kill.viewer import kill_naparis
from tests.kill.worker import kill_workers
from tests.sample_files import cut, sample


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for victim, kills in (("worker", 36), ("cli", 34), ("batch", 10), ("napari", 20)):
        parser.add_argument(f"--{victim}", type=int, default=kills, help=f"kills of the {victim}")
    parser.add_argument("--frames", type=int, default=24, help="of the clip that is tracked")
    parser.add_argument("--side", type=int, default=128, help="of the model's input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a new folder to leave everything in")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rng, tally, began = random.Random(args.seed), Tally(args.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        work = args.keep or Path(name)
        work.mkdir(exist_ok=True)
        long_clip, prior = sample(work)
        (clip,) = cut(long_clip, work, 1, args.frames)
        rest = (args.side, tally, rng)
        if args.worker:
            kill_workers(args.worker, work, clip, prior, *rest)
            show(tally, began)
        if args.cli:
            kill_commands(args.cli, work, clip, prior, *rest)
            show(tally, began)
        if args.batch:
            (work / "clips").mkdir()
            kill_batches(args.batch, work, cut(long_clip, work / "clips", 4, 12), prior, *rest)
            show(tally, began)
        if args.napari:
            kill_naparis(args.napari, work, clip, *rest)
            show(tally, began)
    sys.exit(bool(tally.broken))


def show(tally: Tally, began: float) -> None:
    print(json.dumps(tally.report() | {"minutes": round((time.monotonic() - began) / 60, 1)}), flush=True)


if __name__ == "__main__":
    main()
