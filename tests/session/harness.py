"""A session on the test's thread with a fake engine, and what its tests share."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_samexp.engine.messages.base import Reply, Request, VideoRef
from napari_samexp.engine.messages.model import Loaded, LoadModel, ModelInfo
from napari_samexp.engine.messages.prompts import Preview, Previewed, PriorState, RecordingInfo
from napari_samexp.engine.messages.tracking import Track
from napari_samexp.io.labels import LabelStore
from napari_samexp.session import Session
from napari_samexp.session.folders import SessionFolder
from napari_samexp.types import FrameResult, ObjectScore, Prompt, RunIdentity

CLICK = Prompt.from_lists([(3, 2)])
INFO = ModelInfo("tiny", "SAM 2.1", "tiny.safetensors", "cpu", "float32", 64, 32, True, 10)
IMAGE = np.zeros((8, 10, 3), np.uint8)
VIDEO = np.zeros((6, 8, 10, 3), np.uint8)
GOOD, LOST = ObjectScore(3.0, 0.9), ObjectScore(-2.0, 0.1)


def info(key: str, label: int = 1, name: str = "", *, enabled: bool = True) -> RecordingInfo:
    thumbnail = np.zeros((2, 2, 3), np.uint8)
    return RecordingInfo(
        key, label, name, "p", 0.9, 5.0, thumbnail, CLICK, None, enabled, False, True, "tiny"
    )


class FakeEngine:
    """Keeps what it was asked, and says what the test has it say."""

    def __init__(self, on_reply: Callable[[Reply], None]) -> None:
        self.on_reply = on_reply
        self.requests: list[tuple[int, Request]] = []
        self.videos: list[VideoRef] = []
        self.started = self.closed = False

    def start(self) -> None:
        self.started = True

    def submit(self, request: Request, holds: tuple[object, ...] = ()) -> int:
        self.requests.append((len(self.requests) + 1, request))
        return len(self.requests)

    def share_video(self, source: Any) -> VideoRef:
        self.videos.append(VideoRef("shared", source.shape, stream=len(self.videos) + 1))
        return self.videos[-1]

    def release_video(self, ref: VideoRef) -> None:
        self.videos = [other for other in self.videos if other != ref]

    def close(self) -> None:
        self.closed = True

    def last(self, kind: type[Request]) -> tuple[int, Any]:
        return next(item for item in reversed(self.requests) if isinstance(item[1], kind))

    def count(self, kind: type[Request]) -> int:
        return sum(isinstance(request, kind) for _, request in self.requests)


class SessionHarness:
    """A session on the test's thread, its fake engine, and what its signals notices."""

    def __init__(self, home: Path) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.session = Session(deliver=self._calls.put, home=home, make_engine=self._make)
        self.notices: list[str] = []
        self.jobs: list[str] = []
        self.session.notice.connect(self.notices.append)
        self.session.tracking.job_changed.connect(lambda job: self.jobs.append(job.state))

    def _make(self, on_reply: Callable[[Reply], None]) -> FakeEngine:
        self.engine = FakeEngine(on_reply)
        return self.engine

    def reply(self, *replies: Reply) -> None:
        for reply in replies:
            self.engine.on_reply(reply)
        while not self._calls.empty():
            self._calls.get()()

    def wait(self) -> None:
        """Run what comes from the thread aside."""
        self._calls.get(timeout=100)()

    def answer(self, kind: type[Request], reply: type[Reply], *values: Any) -> None:
        self.reply(reply(self.engine.last(kind)[0], *values))

    def load(self, name: str = "tiny.safetensors") -> None:
        self.session.load_model(name)
        self.answer(LoadModel, Loaded, INFO, PriorState())

    def preview(self, iou: tuple[float, ...] = (0.1, 0.9, 0.3), best: int = 1) -> None:
        bits = np.zeros((len(iou), 10), np.uint8)
        for row in range(len(iou)):
            bits[row, row] = 0x80
        self.answer(Preview, Previewed, (8, 10), iou, 4.0, best, bits)

    def track(self, store: Path, **options: Any) -> int:
        self.session.tracking.set_video(VIDEO)
        self.session.tracking.track(store=store, **options)
        return self.engine.last(Track)[0]


def store_at(path: Path, **details: Any) -> LabelStore:
    identity = RunIdentity("v", "p", "m", "s")
    return LabelStore.create(path, shape=(6, 8, 10), labels={1: "a"}, identity=identity, details=details)


def result(index: int, score: ObjectScore = GOOD) -> FrameResult:
    labels = np.zeros((8, 10), np.uint16)
    labels[0, index] = 1
    return FrameResult(index, labels, {1: score})


def recorded_in(folder: SessionFolder, *, close: bool = True) -> Path:
    (folder.path / "prior").mkdir()
    (folder.path / "prior" / "00000001-0001-1.safetensors").touch()
    if close:
        folder.close()
    return folder.path
