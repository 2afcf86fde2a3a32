"""A tiny model on disk, a client whose replies a test waits for, videos that wait, and looks at what is left."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from napari_samexp.engine import EngineClient, WorkerOptions
from napari_samexp.engine.messages.base import Reply, Request
from napari_samexp.engine.messages.model import LoadModel
from napari_samexp.engine.messages.prompts import Preview, Record
from napari_samexp.engine.messages.tracking import Track
from napari_samexp.engine.sharing import SharedImage
from napari_samexp.sam.variants import Sam2Variant
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import Prompt

PATIENCE_S = 280.0  # far more than anything takes, so that only a hang fails
# a worker that is only slow, on a busy machine, shall not be taken for one that hangs
OPTIONS = WorkerOptions(threads=1, niceness=0, patience_s=60)
HEIGHT, WIDTH, FRAMES = 48, 64, 10
CLICK = Prompt.from_lists([(30, 20)])
OTHER_CLICK = Prompt.from_lists([(12, 30)], [(50, 8)])

TINY = Sam2Variant(
    name="tiny-random",
    version="2.1",
    embed_dim=8,
    num_heads=1,
    stages=(1, 2, 2, 1),
    global_blocks=(3,),
    window_spec=(8, 4, 4, 2),
    image_size=64,
    d_model=32,
    mem_dim=8,
    mem_ff=32,
    mem_layers=1,
    mlp_dim=32,
    iou_hidden=16,
)


def save_tiny_model(path: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a model of random weights that always sees an object."""
    import torch
    from safetensors.torch import save_file

    from napari_samexp.sam.build import new_model
    from napari_samexp.sam.weights.loading import metadata_for

    variant = replace(TINY, **changes)
    torch.manual_seed(seed)
    state = {name: value.detach().clone() for name, value in new_model(variant).state_dict().items()}
    for value in state.values():
        if not value.any():
            torch.nn.init.normal_(value, std=0.5)
    biases = [name for name in state if "pred_obj_score_head" in name and name.endswith("bias")]
    state[sorted(biases)[-1]] += 20
    save_file(state, path, metadata_for(variant))
    return path


def image() -> np.ndarray:
    """Return a disc on noise."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.random.default_rng(3).integers(0, 90, (HEIGHT, WIDTH, 3), np.uint8)
    pixels[(y - 20) ** 2 + (x - 30) ** 2 < 100] = (230, 120, 40)
    return pixels


def frames(count: int = FRAMES) -> np.ndarray:
    """Return the image, moving to the right."""
    return np.stack([np.roll(image(), 3 * index, axis=1) for index in range(count)])


class GatedVideo:
    """Frames that are given one by one, as the test opens the gate.

    Attributes
    ----------
    waiting : Event
        Set while somebody waits at the gate.
    """

    fps = 10.0
    name = "gated"
    fingerprint = "the moving disc"

    def __init__(self, pixels: np.ndarray | None = None) -> None:
        self._pixels = frames() if pixels is None else pixels
        self._gate = threading.Semaphore(0)
        self.waiting = threading.Event()
        self.shape = self._pixels.shape

    def open(self, count: int = 1000) -> None:
        for _ in range(count):
            self._gate.release()

    def frame(self, index: int) -> np.ndarray:
        self.waiting.set()
        assert self._gate.acquire(timeout=PATIENCE_S)
        self.waiting.clear()
        return self._pixels[index]

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._pixels[key]


class Replies:
    """What a client was told, in order; waiting for a reply is waiting for its kind."""

    def __init__(self) -> None:
        self.all: list[Reply] = []
        self.on: dict[type, Callable[[Any], None]] = {}
        self._changed = threading.Condition()

    def __call__(self, reply: Reply) -> None:
        with self._changed:
            self.all.append(reply)
            self._changed.notify_all()
        if type(reply) in self.on:
            self.on[type(reply)](reply)

    def of(self, *kinds: type, id: int | None = None) -> list[Any]:
        return [reply for reply in list(self.all) if isinstance(reply, kinds) and id in (None, reply.id)]

    def wait(self, *kinds: type, id: int | None = None, count: int = 1) -> Any:
        with self._changed:
            there = self._changed.wait_for(lambda: len(self.of(*kinds, id=id)) >= count, PATIENCE_S)
        assert there, f"no {kinds} for {id}; the last were {[type(reply) for reply in self.all[-8:]]}"
        return self.of(*kinds, id=id)[count - 1]

    def answer(self, id: int) -> Any:
        """Return the final reply to a request."""
        with self._changed:
            there = self._changed.wait_for(
                lambda: any(reply.id == id and reply.final for reply in self.all), PATIENCE_S
            )
        assert there, f"no answer to {id}; the last were {[type(reply) for reply in self.all[-8:]]}"
        return next(reply for reply in self.all if reply.id == id and reply.final)


class Line:
    """A client, and what it was told."""

    def __init__(self, folder: Path, options: WorkerOptions = OPTIONS) -> None:
        self.replies = Replies()
        self.folder = folder
        self.client = EngineClient(self.replies, folder, options)
        self.image = SharedImage(image(), "disc")

    def submit(self, request: Request, *holds: object) -> int:
        return self.client.submit(request, holds)

    def ask(self, request: Request, *holds: object) -> Any:
        """Return the final reply to a request."""
        return self.replies.answer(self.submit(request, *holds))

    def load(self, path: Path) -> Any:
        return self.ask(LoadModel(str(path), device="cpu"))

    def preview(self, prompt: Prompt = CLICK) -> Any:
        return self.ask(Preview(self.image.ref, prompt), self.image)

    def record(self, prompt: Prompt = CLICK, label: int = 1, name: str = "disc") -> Any:
        return self.ask(Record(self.image.ref, prompt, label, name), self.image)

    def track(self, store: Path, video: Any, **options: Any) -> int:
        """Begin a run over an array or a gated video, and return its number."""
        from napari_samexp.io.video import open_video

        source = open_video(video) if isinstance(video, np.ndarray) else video
        options.setdefault("frames", range(len(source)))
        ref = self.client.share_video(source)
        return self.submit(Track(str(store), ref, settings=TrackSettings(recent=2, pointers=3), **options))

    def kill(self, *_: object) -> None:
        assert self.client.pid is not None
        os.kill(self.client.pid, signal.SIGKILL)

    def close(self) -> None:
        self.client.close()
        self.image.release()


def shared_blocks(pid: int | None = None) -> set[str]:
    """Return the names of the blocks of shared memory that a process, by default this one, owns."""
    folder = Path("/dev/shm")
    return {path.name for path in folder.glob(f"smx{pid or os.getpid()}-*")} if folder.is_dir() else set()


def workers() -> set[int]:
    """Return the processes that this one started, without the one that counts shared memory."""
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if "resource_tracker" not in " ".join(_command(child))}


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def threads() -> set[str]:
    """Return the names of this package's threads."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("napari-samexp")}


def left_behind() -> tuple[set[str], set[int], set[str]]:
    """Return what a client may not leave: shared memory, processes and threads."""
    return shared_blocks(), workers(), threads()


def eventually(condition: Callable[[], bool], what: str = "it never came true") -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)
