"""Kill a tracking command at random moments, resume it, and compare with a run that was never stopped.

    python benchmarks/kill_and_resume.py [VIDEO PRIOR] [--kills 5] [--frames A:B]

Without a video, the bundled sample and starter are used. The labels and scores of every frame must be equal.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from napari_samexp.io import LabelStore

COMMAND = [sys.executable, "-m", "napari_samexp"]


def sample(folder: Path) -> tuple[Path, Path]:
    """Write the sample's prior picture, record its clicks, and return the clip and the prior."""
    from PIL import Image

    from napari_samexp.samples import load_sample

    scene, prior = load_sample(), folder / "prior.safetensors"
    Image.fromarray(scene.prior).save(folder / "prior.png")
    clicks = [f"--point={x},{y}" for (x, y), label in zip(scene.points_xy, scene.labels) if label]
    subprocess.run([*COMMAND, "record", folder / "prior.png", *clicks, "--out", prior], check=True)
    return Path(scene.clip_path), prior


def killed_run(command: list[object], store: Path, kills: int, pause: float, rng: random.Random) -> list[int]:
    """Run `command` to its end through `kills` kills; return how many frames were done after each."""
    done: list[int] = []
    for _ in range(kills):
        process = subprocess.Popen(
            [*map(str, command), "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = finished(store)
        while process.poll() is None and finished(store) <= before:
            time.sleep(0.02)
        time.sleep(rng.random() * pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done.append(finished(store))
    subprocess.run([*map(str, command), "--resume"], check=True, stdout=subprocess.DEVNULL)
    return done


def finished(store: Path) -> int:
    journal = store / "scores.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", nargs="?", type=Path)
    parser.add_argument("prior", nargs="?", type=Path)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--frames", default=":")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video, prior = (args.video, args.prior) if args.prior else sample(folder)
        track = [*COMMAND, "track", video, "--prior", prior, "--frames", args.frames, "--out"]
        started = time.monotonic()
        whole, broken = folder / "whole.zarr", folder / "broken.zarr"
        subprocess.run([*map(str, track), str(whole)], check=True, stdout=subprocess.DEVNULL)
        pause = (time.monotonic() - started) / (args.kills + 1) / 2
        done = killed_run([*track, broken], broken, args.kills, pause, random.Random(args.seed))
        with LabelStore.open(whole, mode="r") as a, LabelStore.open(broken, mode="r") as b:
            frames = [int(i) for i in np.flatnonzero(a.done)]
            labels = all(np.array_equal(a.frame(i), b.frame(i)) for i in frames)
            report = {"frames": len(frames), "done_after_each_kill": done, "labels_equal": labels}
            print(
                json.dumps(
                    report | {"scores_equal": a.scores == b.scores, "memories_left": len(b.load_memories())}
                )
            )


if __name__ == "__main__":
    main()
