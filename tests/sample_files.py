"""The bundled sample as files: a recorded prior and clips, for what is run as a person would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

from napari_samexp.io.video import open_video
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.samples import load_sample

__all__ = ["COMMAND", "clicks", "cut", "sample"]

COMMAND = [sys.executable, "-P", "-m", "napari_samexp"]


def clicks() -> list[str]:
    """Return the sample's clicks on the object, as the command line takes them."""
    scene = load_sample()
    return [f"--point={x},{y}" for (x, y), label in zip(scene.points_xy, scene.labels) if label]


def sample(folder: Path, *options: str) -> tuple[Path, Path]:
    """Write the sample's prior image, record its clicks, and return the clip and the prior."""
    scene, prior = load_sample(), folder / "prior.safetensors"
    Image.fromarray(scene.prior).save(folder / "prior.png")
    command = [*COMMAND, "record", folder / "prior.png", *clicks(), *options, "--out", prior]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Path(scene.clip_path), prior


def cut(clip: Path, folder: Path, clips: int, frames: int) -> list[Path]:
    """Write stretches of a clip, each another."""
    paths = [folder / f"clip{number:02}.mp4" for number in range(clips)]
    with open_video(clip) as video:
        for number, path in enumerate(paths):
            write_mp4(path, (video.frame((number + t) % len(video)) for t in range(frames)), 12)
    return paths
