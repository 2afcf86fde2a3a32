"""Memory of the machine or of the GPU that is not enough: one sentence, and everything else lives on."""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from napari_samexp.engine.encoded_images import EncodedImages
from napari_samexp.engine.errors import exit_error
from napari_samexp.engine.journal import PriorJournal
from napari_samexp.engine.messages.base import Failed, VideoRef, WorkerDied, Working
from napari_samexp.engine.messages.model import Loaded, LoadModel
from napari_samexp.engine.messages.prompts import Preview, Previewed, Record
from napari_samexp.engine.messages.tracking import FrameDone, Track, TrackEnded
from napari_samexp.engine.recorder import Recorder
from napari_samexp.engine.sharing import SharedImage
from napari_samexp.engine.worker import Worker
from napari_samexp.errors import NO_MEMORY
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.tracking.settings import TrackSettings
from tests.engine.engine_tools import CLICK, Line, frames


def _of_numpy() -> MemoryError:
    with pytest.raises(MemoryError) as raised:
        np.empty(1 << 62, np.uint8)
    return raised.value


SHORTAGES = [
    MemoryError(),
    _of_numpy(),
    torch.cuda.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8 GiB"
    ),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB)"),
]


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux limits the memory of another process"
)
def test_a_worker_without_memory_says_so_and_works_on(ready: Line) -> None:
    assert ready.client.pid is not None
    worker = psutil.Process(ready.client.pid)
    assert isinstance(ready.preview(), Previewed)
    before = worker.rlimit(psutil.RLIMIT_AS)
    # 8-bit RGB of this size fits, the model's floats at a side of 4096 do not
    # (a thread's first allocation sets 64 MB of addresses aside, which count as well)
    worker.rlimit(psutil.RLIMIT_AS, (worker.memory_info().vms + (128 << 20), before[1]))
    large = SharedImage(np.zeros((500, 500, 3), np.uint8))
    failed = ready.ask(Preview(large.ref, CLICK, side=4096), large)
    assert isinstance(failed, Failed) and failed.sentence == NO_MEMORY and not failed.trace
    assert isinstance(ready.preview(), Previewed)  # the same worker, at once
    worker.rlimit(psutil.RLIMIT_AS, before)
    assert isinstance(ready.ask(Preview(large.ref, CLICK, side=64), large), Previewed)
    assert ready.client.pid == worker.pid and not ready.replies.of(WorkerDied)
    large.release()


def test_a_worker_that_the_system_ends_for_memory_is_replaced_and_a_smaller_side_suggested(
    ready: Line,
) -> None:
    ready.record(name="kept")
    worker = ready.client.pid

    def kill(working: Working) -> None:
        if working.what == "encoding":
            del ready.replies.on[Working]
            ready.kill()  # as Linux does in the middle of an allocation

    ready.replies.on[Working] = kill
    large = SharedImage(np.ones((40, 50, 3), np.uint8))
    ready.submit(Preview(large.ref, CLICK), large)
    died = ready.replies.wait(WorkerDied)
    assert died.restarting and "memory" in died.sentence and "smaller encode side or model" in died.sentence
    loaded = ready.replies.wait(Loaded)
    assert [info.name for info in loaded.prior.recordings] == ["kept"]
    assert isinstance(ready.preview(), Previewed) and ready.client.pid != worker
    large.release()


def test_other_ends_of_a_worker_do_not_speak_of_memory() -> None:
    assert "memory" not in str(exit_error(-signal.SIGTERM))
    assert "memory" not in str(exit_error(3))


# A worker in this process, whose model has no room


@dataclass
class Connection:
    """Takes the replies."""

    said: list[Any] = field(default_factory=list)

    def send(self, reply: Any) -> None:
        self.said.append(reply)


class NothingWaits:
    """An inbox of requests that are given by hand."""

    cancelled = False

    def __init__(self) -> None:
        self.waiting: deque[Any] = deque()

    def has(self, kind: type) -> bool:
        return False

    def take(self, *kinds: type) -> list[Any]:
        return []


@pytest.fixture
def worker(tmp_path: Path, tiny_file: Path) -> Any:
    connection = Connection()
    recorder = Recorder(PriorJournal(tmp_path / "prior"), EncodedImages(2))
    made: Any = Worker(connection, NothingWaits(), recorder)  # type: ignore[arg-type]
    made._handle(1, LoadModel(str(tiny_file), device="cpu"))
    assert isinstance(connection.said[-1], Loaded)
    return SimpleNamespace(
        ask=made._handle, said=connection.said, step=made._runner.advance, recorder=recorder
    )


def without_room(monkeypatch: pytest.MonkeyPatch, error: Exception, after: int = 0) -> Callable[[], None]:
    """Have the model find no room for an image, from the `after`-th on, until the returned is called."""
    calls, encode = 0, Sam2.encode

    def encoded(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise error
        return encode(self, *arguments, **options)

    monkeypatch.setattr(Sam2, "encode", encoded)
    return lambda: monkeypatch.setattr(Sam2, "encode", encode)


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: type(error).__name__)
def test_a_click_without_room_is_one_sentence_and_the_next_is_answered(
    worker: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    image = SharedImage(frames()[0], "disc")
    relieve = without_room(monkeypatch, error)
    for request in (Preview(image.ref, CLICK), Record(image.ref, CLICK, 1, "disc")):
        worker.ask(2, request)
        assert worker.said[-1] == Failed(2, NO_MEMORY, "out-of-memory")
    assert not worker.recorder.journal.prior.recordings
    relieve()
    worker.ask(3, Preview(image.ref, CLICK))
    assert isinstance(worker.said[-1], Previewed)
    image.release()


@pytest.mark.parametrize("error", SHORTAGES[1:3], ids=lambda error: type(error).__name__)
def test_a_run_without_room_ends_with_the_sentence_and_goes_on_later(
    worker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    from PIL import Image

    (tmp_path / "clip").mkdir()
    for number, frame in enumerate(frames(5)):
        Image.fromarray(frame).save(tmp_path / "clip" / f"{number}.png")
    video = VideoRef("clip", (5, 48, 64, 3), path=str(tmp_path / "clip"))
    image = SharedImage(frames()[0], "disc")
    worker.ask(2, Record(image.ref, CLICK, 1, "disc"))
    settings = TrackSettings(recent=2, pointers=3)
    relieve = without_room(monkeypatch, error, after=2)
    worker.ask(3, Track(str(tmp_path / "x.zarr"), video, range(5), settings))
    for _ in range(3):
        worker.step()
    assert worker.said[-1] == TrackEnded(3, "failed", NO_MEMORY, "out-of-memory")
    assert sum(isinstance(reply, FrameDone) for reply in worker.said) == 2
    relieve()
    worker.ask(4, Track(str(tmp_path / "x.zarr"), video, range(5), settings, resume=True))
    for _ in range(4):
        worker.step()
    assert worker.said[-1] == TrackEnded(4, "finished")
    assert sum(isinstance(reply, FrameDone) for reply in worker.said) == 5
    image.release()


def test_a_command_without_room_says_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    from napari_samexp.cli import run

    Image.fromarray(frames()[0]).save(tmp_path / "a.png")
    without_room(monkeypatch, SHORTAGES[2])
    prior = tmp_path / "p.safetensors"
    arguments = [
        "record",
        str(tmp_path / "a.png"),
        "--model",
        str(tiny_file),
        "--point",
        "30,20",
        "--out",
        str(prior),
    ]
    assert run(arguments) == 2
    assert capsys.readouterr().err == f"napari-samexp: {NO_MEMORY}\n"
    assert not prior.exists()


def test_a_job_of_a_batch_without_room_says_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_file: Path
) -> None:
    from napari_samexp.batch import work

    def loaded(job: Any) -> Any:
        raise SHORTAGES[2]

    monkeypatch.setattr(work, "_cached_model", loaded)
    job = work.Job("a", "p", "v", str(tmp_path / "s"), str(tiny_file))
    (result,) = work.run_job(job)
    assert (result.status, result.error) == ("failed", NO_MEMORY)  # type: ignore[union-attr]
