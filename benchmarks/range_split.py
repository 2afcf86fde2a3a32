"""A video cut into ranges with a warm-up, against the same video tracked in one go.

    python benchmarks/range_split.py [--video V --prior P] [--frames 96] [--length 24] [--warm-ups 0,4,16]

For each warm-up: the mean J of both labels over frames in which either found something, the share of frames
with equal presence, the share of frames that are equal to the pixel, and how many frames were tracked for each that counts. A
cut run's labels are others than an uncut run's; this says how far.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sample_files import sample

from napari_samexp.batch.jobs import Job, JobResult
from napari_samexp.batch.ranges import merge, split_job
from napari_samexp.batch.work import run_job
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video
from napari_samexp.measure.davis import jaccard
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.tracking import TrackSettings


def to_and_fro(clip: Path, frames: int, folder: Path) -> Path:
    """Write a longer clip: the short one forward, backward, and so on, without a jump."""
    with open_video(clip) as video:
        turn = [*range(len(video)), *range(len(video) - 2, 0, -1)]
        write_mp4(folder / "long.mp4", (video.frame(turn[t % len(turn)]) for t in range(frames)), video.fps)
    return folder / "long.mp4"


def ended(job: Job) -> JobResult:
    *_, result = run_job(job)
    assert isinstance(result, JobResult) and result.status == "done", result
    return result


def agreement(one: Path, other: Path) -> dict:
    with LabelStore.open(one, mode="r") as a, LabelStore.open(other, mode="r") as b:
        found, same, equal = [], [], []
        for t in range(a.shape[0]):
            first, second = a.frame(t), b.frame(t)
            if first.any() or second.any():
                found.append(jaccard(first > 0, second > 0))
            same.append(all(a.scores[t][label].lost == b.scores[t][label].lost for label in a.labels))
            equal.append(bool((first == second).all()))
    return {
        "mean_J": round(float(np.mean(found)), 4) if found else None,
        "worst_J": round(min(found), 4) if found else None,
        "presence_equal": round(float(np.mean(same)), 4),
        "frames_equal": round(float(np.mean(equal)), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video", type=Path)
    parser.add_argument("--prior", type=Path)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--length", type=int, default=24)
    parser.add_argument("--warm-ups", default="0,4,16")
    parser.add_argument("--side", type=int)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video, prior = (args.video, args.prior) if args.video else sample(folder)
        video = video if args.video else to_and_fro(video, args.frames, folder)
        settings = TrackSettings(side=args.side)
        job = Job("uncut", str(prior), str(video), str(folder / "uncut.zarr"), args.model, settings=settings)
        with open_video(video) as source:
            count = len(source)
        whole = ended(job)
        print(json.dumps({"uncut": whole.frames, "seconds": round(whole.seconds, 1)}), flush=True)
        for warm_up in map(int, args.warm_ups.split(",")):
            cut = replace(job, name=f"cut{warm_up}", store=str(folder / f"cut{warm_up}.zarr"))
            parts = split_job(cut, count, args.length, warm_up)
            results = [ended(part) for part in parts]
            merge(cut, parts)
            facts = agreement(Path(job.store), Path(cut.store))
            work = sum(result.tracked for result in results) / count
            # the longest range is what as many workers as ranges would wait for
            longest = max(result.seconds for result in results)
            more = {"work": round(work, 3), "seconds": round(sum(r.seconds for r in results), 1)}
            print(
                json.dumps({"warm_up": warm_up, **facts, **more, "longest_s": round(longest, 1)}), flush=True
            )


if __name__ == "__main__":
    main()
