"""Disks that fill up, turn read-only, or go away in the middle of a run; files that vanish; a store opened twice.

    sudo python -m tests.fuzz.bad_disks        (Linux; it mounts small file systems in a folder of its own)

Each case is the real command line on a real file system. What has to come of it: exit status 2 with one sentence
that is no traceback, every finished frame kept, nothing made where the disk was, and once the disk is well again
the same command with --resume ends with the labels of a run that nothing happened to.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from napari_samexp.engine.messages.base import Failed
from napari_samexp.engine.messages.model import LoadModel
from napari_samexp.engine.messages.prompts import PriorChanged, Record
from napari_samexp.engine.sharing import SharedImage
from napari_samexp.io.video import open_video
from napari_samexp.samples import load_sample
from napari_samexp.types import Prompt
from tests.kill.checks import finished, recorded_names, same_labels, whole_files
from tests.kill.worker import KillableClient
from tests.sample_files import COMMAND, clicks, cut, sample

CPU = ("--device", "cpu", "--dtype", "float32")


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


@contextmanager
def disk(place: Path, megabytes: int) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=False, stderr=subprocess.DEVNULL)


def fill(folder: Path) -> Path:
    """Take all the room that a disk has."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return path


class Cases:
    """Runs that are disturbed once some frames are finished, and what came of them."""

    def __init__(self, work: Path, frames: int) -> None:
        self.work = work
        long_clip, self.prior = sample(work)
        (self.clip,) = cut(long_clip, work, 1, frames)
        self.frames = frames
        self.whole = work / "whole.zarr"
        assert self.start(self.clip, self.whole).wait() == 0
        self.results: dict[str, str] = {}

    def start(self, video: Path, store: Path, *options: object) -> subprocess.Popen[str]:
        command = [*COMMAND, "track", video, "--prior", self.prior, "--side", 128, *CPU, "--out", store]
        return subprocess.Popen(
            [*map(str, command), *map(str, options)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def disturbed(self, video: Path, store: Path, disturb: Callable[[], object]) -> tuple[str, set[int]]:
        """Track, disturb once two frames are finished, and return the sentence and the finished frames."""
        process = self.start(video, store)
        while process.poll() is None and len(finished(store)) < 2:
            time.sleep(0.002)
        assert process.poll() is None, process.stderr and process.stderr.read()
        process.send_signal(19)  # so that it is not done before
        done = finished(store)
        disturb()
        process.send_signal(18)
        _, said = process.communicate()
        assert process.returncode == 2, (process.returncode, said)
        return one_sentence(said), done

    def resumed(self, video: Path, store: Path, done: set[int]) -> None:
        """The finished frames are there, and the rest becomes what it would have been."""
        assert done <= finished(store) < set(range(self.frames))
        process = self.start(video, store, "--resume")
        assert process.wait() == 0, process.stderr and process.stderr.read()
        self.is_whole(store)

    def is_whole(self, store: Path) -> None:
        assert not same_labels(store, self.whole, range(self.frames))
        assert not whole_files(store)


def one_sentence(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith("napari-samexp: ")]
    assert "Traceback" not in said and len(lines) == 1, said
    return lines[0].removeprefix("napari-samexp: ")


def full_while_tracking(cases: Cases) -> str:
    with disk(cases.work / "small", 2) as place:
        store = place / "labels.zarr"
        sentence, done = cases.disturbed(cases.clip, store, lambda: fill(place))
        (place / "filler").unlink()
        cases.resumed(cases.clip, store, done)
    return sentence


def full_while_recording(cases: Cases) -> str:
    """A prior that recordings are added to is as it was; a new one is not there."""
    with disk(cases.work / "small", 2) as place:
        prior = place / "prior.safetensors"
        shutil.copy(cases.prior, prior)
        before = prior.read_bytes()
        fill(place)
        record = [*COMMAND, "record", cases.work / "prior.png", *clicks(), *CPU, "--out"]
        said = ""
        for out, option in ((prior, "--append"), (place / "new.safetensors", "--overwrite")):
            run = subprocess.run(
                [*map(str, record), str(out), option], capture_output=True, text=True, check=False
            )
            assert run.returncode == 2, run.stderr
            said = one_sentence(run.stderr)
        assert prior.read_bytes() == before
        assert sorted(path.name for path in place.iterdir()) == ["filler", "prior.safetensors"]
    return said


def full_while_recording_in_the_window(cases: Cases) -> str:
    """The dock's own folder is on the full disk: what was recorded stays, and the next recording says why not."""
    scene = load_sample()
    with disk(cases.work / "small", 2) as place:
        client, image = KillableClient(place / "session"), SharedImage(scene.prior, "prior.png")
        request = Record(image.ref, Prompt(scene.points_xy, scene.labels), 1, "kept")
        client.ask(LoadModel("starter", device="cpu"))
        assert isinstance(client.ask(request, image), PriorChanged)
        filler = fill(place)
        failed = client.ask(request, image)
        assert isinstance(failed, Failed) and not failed.trace, failed
        (newest,) = (place / "session" / "prior").glob("*.safetensors")
        assert recorded_names(newest) == ["kept"]
        filler.unlink()
        changed = client.ask(request, image)
        assert [info.name for info in changed.prior.recordings] == ["kept", "kept"]
        client.close()
        image.release()
    return failed.sentence


def read_only_from_the_start(cases: Cases) -> str:
    """A video on a read-only disk is tracked; labels cannot go there, and that is said before any work."""
    with disk(cases.work / "far", 8) as place:
        video = place / "clip.mp4"
        shutil.copy(cases.clip, video)
        shutil.copytree(cases.whole, place / "there.zarr")
        mount("-o", "remount,ro", place)
        store = cases.work / "elsewhere.zarr"
        assert cases.start(video, store).wait() == 0
        cases.is_whole(store)
        process = cases.start(video, place / "labels.zarr")
        _, said = process.communicate()
        assert process.returncode == 2 and not (place / "labels.zarr").exists()
        export = [*COMMAND, "export", place / "there.zarr", "--to", "tiff", "--out", cases.work / "there.tif"]
        subprocess.run(list(map(str, export)), check=True, stdout=subprocess.DEVNULL)
    return one_sentence(said)


def read_only_while_tracking(cases: Cases) -> str:
    with disk(cases.work / "far", 8) as place:
        store = place / "labels.zarr"

        def turn() -> None:
            # a file system with open files cannot be remounted, so another, read-only view is laid over it
            mount("--bind", place, place)
            mount("-o", "remount,bind,ro", place)

        sentence, done = cases.disturbed(cases.clip, store, turn)
        subprocess.run(["umount", place], check=True)
        cases.resumed(cases.clip, store, done)
    return sentence


def disk_of_the_labels_goes_away(cases: Cases) -> str:
    """As a network's folder does: the place is empty then, and nothing may be made in it."""
    with disk(cases.work / "far", 8) as place, disk(cases.work / "there", 8) as there:
        mount("--bind", there, place)
        store = place / "labels.zarr"
        sentence, done = cases.disturbed(
            cases.clip, store, lambda: subprocess.run(["umount", "-l", place], check=True)
        )
        assert not [path for path in place.iterdir() if not path.name.startswith(".")], list(place.iterdir())
        mount("--bind", there, place)
        cases.resumed(cases.clip, store, done)
        subprocess.run(["umount", "-l", place], check=True)
    return sentence


def video_goes_away(cases: Cases) -> str:
    """A folder of images that is removed, as a network's is; back again, the run goes on."""
    images, away = cases.work / "images", cases.work / "away"
    images.mkdir()
    with open_video(cases.clip) as video:
        for index, frame in enumerate(video):
            Image.fromarray(frame).save(images / f"{index:04}.png")
    whole, store = cases.whole, cases.work / "images.zarr"
    cases.whole = cases.work / "images-whole.zarr"
    assert cases.start(images, cases.whole).wait() == 0
    sentence, done = cases.disturbed(images, store, lambda: images.rename(away))
    away.rename(images)
    cases.resumed(images, store, done)
    cases.whole = whole
    return sentence


def video_is_cut_short(cases: Cases) -> str:
    """A file that is overwritten while it is read; whole again, the run goes on."""
    video, store = cases.work / "cut.mp4", cases.work / "cut.zarr"
    shutil.copy(cases.clip, video)
    sentence, done = cases.disturbed(video, store, lambda: os.truncate(video, 4096))
    shutil.copy(cases.clip, video)
    cases.resumed(video, store, done)
    return sentence


def store_opened_twice(cases: Cases) -> str:
    store = cases.work / "twice.zarr"
    first = cases.start(cases.clip, store)
    while first.poll() is None and not finished(store):
        time.sleep(0.002)
    first.send_signal(19)
    said = []
    for option in ("--resume", "--overwrite"):
        second = cases.start(cases.clip, store, option)
        said.append(one_sentence(second.communicate()[1]))
        assert second.returncode == 2
    first.send_signal(18)
    assert first.wait() == 0 and all("Another process" in sentence for sentence in said)
    cases.is_whole(store)
    return said[0]


CASES = (
    full_while_tracking,
    full_while_recording,
    full_while_recording_in_the_window,
    read_only_from_the_start,
    read_only_while_tracking,
    disk_of_the_labels_goes_away,
    video_goes_away,
    video_is_cut_short,
    store_opened_twice,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--only", choices=[case.__name__ for case in CASES])
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    broken = 0
    with tempfile.TemporaryDirectory() as name:
        cases = Cases(Path(name), args.frames)
        for case in CASES:
            if args.only in (None, case.__name__):
                try:
                    print(json.dumps({case.__name__: case(cases)}), flush=True)
                except AssertionError as error:
                    broken += 1
                    print(json.dumps({case.__name__: "BROKEN", "how": str(error)[-1500:]}), flush=True)
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
