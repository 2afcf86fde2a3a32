"""A batch of 40 clips on 2 workers, one of which is killed on the way; then compared with plain tracking.

    python benchmarks/batch_kill.py [--clips 40] [--frames 8] [--side 128] [--kill-after 12]

The clips are stretches of the bundled sample, each another. Printed are how the jobs ended, how many frames were
tracked twice, and whether the labels of every clip equal those of a run that nothing happened to.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from kill_and_resume import sample

from napari_samexp.batch.jobs import Job, JobResult
from napari_samexp.batch.manifest import Manifest
from napari_samexp.batch.plan import plan_jobs
from napari_samexp.batch.pool import DaskPool
from napari_samexp.batch.run import run_jobs
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.mp4 import write_mp4
from napari_samexp.io.video import open_video
from napari_samexp.sam import load_model
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings


def cut(clip: Path, folder: Path, clips: int, frames: int) -> list[Path]:
    paths = [folder / f"clip{number:02}.mp4" for number in range(clips)]
    with open_video(clip) as video:
        for number, path in enumerate(paths):
            write_mp4(path, (video.frame((number + t) % len(video)) for t in range(frames)), 12)
    return paths


def run(jobs: list[Job], folder: Path, kill_after: int) -> dict:
    results: dict[str, JobResult] = {}
    killed, began = "", time.monotonic()
    with DaskPool(2) as pool:
        for event in run_jobs(jobs, pool, Manifest(folder / "manifest.jsonl")):
            if isinstance(event, JobResult):
                results[event.job] = event
            elif not killed and len(results) >= kill_after and 0 < event.done < event.total:
                own = {child.pid: child for child in psutil.Process().children(recursive=True)}
                own[int(event.worker.rpartition(":")[2])].kill()
                killed = f"{event.job} at frame {event.done} of {event.total}"
    ends = [result.status for result in results.values()]
    return {
        "jobs": len(jobs),
        **{status: ends.count(status) for status in sorted(set(ends))},
        "killed": killed,
        "resumed": [name for name, result in results.items() if 0 < result.tracked < result.frames],
        "processes": len({result.worker for result in results.values()}),
        "seconds": round(time.monotonic() - began, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def equal_to_plain(jobs: list[Job]) -> bool:
    torch.set_num_threads(1)
    model, prior = load_model("starter", device="cpu"), PriorMemory.load(jobs[0].prior)
    same = True
    for job in jobs:
        with open_video(job.video) as video, LabelStore.open(job.store, mode="r") as store:
            results = list(Tracker(model, prior, job.settings).run(video))
            same &= all(np.array_equal(store.frame(r.index), r.labels) for r in results)
            same &= store.scores == {r.index: r.scores for r in results}
    return same


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--kill-after", type=int, default=12, help="finished jobs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, prior = sample(folder)
        clips = cut(clip, folder, args.clips, args.frames)
        like = Job(
            "", str(prior), "", "", "starter", "cpu", "float32", TrackSettings(side=args.side), threads=1
        )
        jobs = plan_jobs({"prior": like}, clips, folder / "out")
        print(json.dumps(run(jobs, folder / "out", args.kill_after)), flush=True)
        print(json.dumps({"equal_to_plain_tracking": equal_to_plain(jobs)}))


if __name__ == "__main__":
    main()
