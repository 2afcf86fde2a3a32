"""How many frames a second a batch tracks with 1 and 2 workers, against `track` one video after another.

    python -m benchmarks.speed.batch_throughput [--videos 4] [--frames 48] [--side 128] [--workers 1,2]

The bundled sample and starter are used, copies of the clip, each run in a fresh folder. "track" is one process
that loads the model once and tracks the videos in turn with the library's own loop, with as many threads as
the one worker has; "command" is the command line once a video, which loads the model anew each time. The
cluster's start (importing torch in each process) is told apart: it is paid once, however many videos there are.
Each figure comes with the machine's load, since others may use it too, and with the CPU time a frame of all
processes together, cluster included, which does not wait for others.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from napari_samexp.batch.jobs import Job, JobProgress, JobResult
from napari_samexp.batch.manifest import Manifest
from napari_samexp.batch.plan import plan_jobs
from napari_samexp.batch.pool import DaskPool
from napari_samexp.batch.run import run_jobs
from napari_samexp.io.video import open_video
from napari_samexp.sam import load_model
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, open_store, track_into
from tests.sample_files import sample


def jobs_in(folder: Path, videos: list[Path], prior: Path, args: argparse.Namespace, name: str) -> list[Job]:
    like = Job(
        "", str(prior), "", "", "starter", "cpu", settings=TrackSettings(side=args.side), last=args.frames
    )
    return plan_jobs({"prior": like}, videos, folder / name)


def plain(jobs: list[Job], threads: int) -> dict:
    """Track as a script of a user's would."""
    torch.set_num_threads(threads)
    model, prior = load_model("starter", device="cpu"), PriorMemory.load(jobs[0].prior)
    began, used, frames = time.monotonic(), time.process_time(), 0
    for job in jobs:
        with open_video(job.video) as video:
            Path(job.store).parent.mkdir(parents=True, exist_ok=True)
            with open_store(job.store, model, prior, job.settings, video) as store:
                tracker = Tracker(model, prior, job.settings)
                frames += sum(1 for _ in track_into(store, tracker, video, job.frames(len(video))))
    return speed("track", frames, time.monotonic() - began, time.process_time() - used)


def command(jobs: list[Job], threads: int) -> dict:
    """Run the command line once a video."""
    began = time.monotonic()
    for job in jobs:
        subprocess.run(
            [
                sys.executable, "-P", "-m", "napari_samexp", "track", job.video, "--prior", job.prior, "--out", job.store,
                "--frames", f":{job.last}", "--side", str(job.settings.side), "--device", "cpu",
            ],
            check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
    return speed("command", len(jobs) * jobs[0].last, time.monotonic() - began)


def pooled(jobs: list[Job], workers: int, threads: int) -> dict:
    began = time.monotonic()
    first, used, frames = 0.0, 0.0, 0
    with DaskPool(workers) as pool:
        for event in run_jobs(
            [replace(job, threads=threads) for job in jobs],
            pool,
            Manifest(Path(jobs[0].store).parents[2] / "m.jsonl"),
        ):
            if isinstance(event, JobProgress) and not first:
                first, used = time.monotonic(), cpu_of_all()
            if isinstance(event, JobResult):
                assert event.status == "done", event
                frames += event.tracked
        ended, used = time.monotonic(), cpu_of_all() - used
    return speed(f"{workers} workers", frames, ended - first, used) | {"start_s": round(first - began, 1)}


def cpu_of_all() -> float:
    """Return the CPU seconds of this process and of those that it started and that live."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def speed(what: str, frames: int, seconds: float, cpu: float | None = None) -> dict:
    made = {
        "what": what,
        "frames": frames,
        "seconds": round(seconds, 2),
        "frames_per_s": round(frames / seconds, 3),
    }
    if cpu is not None:
        made["cpu_ms_per_frame"] = round(1000 * cpu / frames, 2)
    return made | {"load": round(os.getloadavg()[0], 1)}


def one_round(folder: Path, args: argparse.Namespace, *, with_command: bool) -> Iterator[dict]:
    clip, prior = sample(folder)
    videos = [Path(shutil.copyfile(clip, folder / f"clip{n}.mp4")) for n in range(args.videos)]
    yield plain(jobs_in(folder, videos, prior, args, "plain"), args.threads)
    for count in map(int, args.workers.split(",")):
        yield pooled(jobs_in(folder, videos, prior, args, f"w{count}"), count, args.threads)
    if with_command:
        yield command(jobs_in(folder, videos, prior, args, "command"), args.threads)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in every process")
    parser.add_argument(
        "--rounds", type=int, default=3, help="each kind this often, in turn; the best counts"
    )
    parser.add_argument("--command", action="store_true", help="also the command line, once a video")
    args = parser.parse_args()
    best: dict[str, dict] = {}
    for turn in range(args.rounds):
        with tempfile.TemporaryDirectory() as name:
            for made in one_round(Path(name), args, with_command=args.command and not turn):
                print(json.dumps({"round": turn, **made}), flush=True)
                if made["frames_per_s"] > best.get(made["what"], {"frames_per_s": 0})["frames_per_s"]:
                    best[made["what"]] = made
    base = best["track"]["frames_per_s"]
    ratios = {what: round(made["frames_per_s"] / base, 3) for what, made in best.items()}
    print(json.dumps({"against_track": ratios}))
    cpu = {what: made.get("cpu_ms_per_frame") for what, made in best.items()}
    print(json.dumps({"cpu_ms_per_frame": cpu}))


if __name__ == "__main__":
    main()
