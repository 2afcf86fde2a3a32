"""Workers that are killed, that hang, and that outlive nobody: what is lost is nothing, and nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from napari_samexp.engine import WorkerOptions
from napari_samexp.engine.messages.base import CANCEL, Done, Failed, VideoRef, WorkerDied, Working
from napari_samexp.engine.messages.model import Loaded, LoadModel, Ready
from napari_samexp.engine.messages.prompts import Preview, Previewed, Record, UndoChange
from napari_samexp.engine.messages.tracking import FrameDone, Track, TrackEnded, TrackStarted
from napari_samexp.engine.sharing import SharedImage
from napari_samexp.io.labels import LabelStore
from tests.engine.engine_tools import CLICK, OTHER_CLICK, GatedVideo, Line, eventually, frames, shared_blocks

OPTIONS = WorkerOptions(threads=1, niceness=0, patience_s=1)  # of the client that these tests share


def labels_of(store: Path) -> np.ndarray:
    return np.asarray(LabelStore.open(store, mode="r").array[:])


def kill_when(line: Line, what: str) -> None:
    """Kill the worker, once, at the moment when it says that it begins with something."""

    def kill(working: Working) -> None:
        if working.what == what:
            del line.replies.on[Working]
            line.kill()

    line.replies.on[Working] = kill


def died_once(line: Line) -> WorkerDied:
    """Return what was said of the one worker that died, once its successor is ready."""
    line.replies.wait(Ready)
    (died,) = line.replies.of(WorkerDied)
    assert died.restarting
    return died


def test_killed_while_loading_another_loads(shared_line: Line, tiny_file: Path) -> None:
    kill_when(shared_line, "loading")
    assert isinstance(shared_line.load(tiny_file), Loaded)
    (died,) = shared_line.replies.of(WorkerDied)
    assert died.restarting and "SIGKILL" in died.sentence


@pytest.mark.parametrize("stage", ["encoding", "predicting"])
def test_killed_over_a_preview_the_next_is_answered(ready: Line, stage: str) -> None:
    kill_when(ready, stage)
    other = SharedImage(np.random.default_rng(len(stage)).integers(0, 255, (40, 40), np.uint8))
    lost = ready.submit(Preview(other.ref, CLICK), other)
    ready.replies.wait(Loaded)
    died_once(ready)
    assert isinstance(ready.preview(), Previewed)
    assert len(ready.replies.of(Previewed, Failed, id=lost)) == 1  # the answer may have been on its way
    other.release()


def test_killed_while_recording_the_prompt_is_recorded(ready: Line) -> None:
    kill_when(ready, "recording")
    changed = ready.record(name="once")
    died_once(ready)
    assert [info.name for info in changed.prior.recordings] == ["once"]


def test_killed_when_the_recording_is_on_disk_it_is_not_made_twice(ready: Line) -> None:
    journal = ready.folder / "prior"
    before = set(journal.glob("*.safetensors"))
    number = ready.submit(Record(ready.image.ref, CLICK, 1, "once"), ready.image)
    # from here on the recording is made, and the answer may never come
    eventually(lambda: bool(set(journal.glob("*.safetensors")) - before))
    ready.kill()
    changed = ready.replies.answer(number)
    assert [info.name for info in changed.prior.recordings] == ["once"]
    died_once(ready)
    assert [info.name for info in ready.record(OTHER_CLICK, name="twice").prior.recordings] == [
        "once",
        "twice",
    ]


def test_killed_at_rest_the_recordings_are_there_again(ready: Line) -> None:
    ready.record(name="kept")
    ready.kill()
    loaded = ready.replies.wait(Loaded)
    died_once(ready)
    assert [info.name for info in loaded.prior.recordings] == ["kept"]
    assert [info.name for info in ready.replies.wait(Ready).prior.recordings] == ["kept"]


def test_killed_while_tracking_the_run_goes_on_from_its_store(ready: Line, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.zarr", tmp_path / "killed.zarr"
    ready.record()
    assert ready.replies.answer(ready.track(whole, frames())).how == "finished"
    ready.replies.on[FrameDone] = lambda done: ready.kill() if done.index == 3 else None
    ended = ready.replies.answer(ready.track(killed, frames()))
    assert ended.how == "interrupted" and "SIGKILL" in ended.sentence
    ready.replies.on.clear()
    assert ready.replies.answer(ready.track(killed, frames(), resume=True)).how == "finished"
    died_once(ready)
    # what was finished before the kill took effect is not tracked again
    assert ready.replies.of(TrackStarted)[-1].done >= 4
    np.testing.assert_array_equal(labels_of(killed), labels_of(whole))


def test_a_cancelled_worker_that_hangs_is_ended_and_replaced(ready: Line, tmp_path: Path) -> None:
    ready.record()
    video = GatedVideo()
    number = ready.track(tmp_path / "hung.zarr", video)
    video.open(3)
    ready.replies.wait(FrameDone, count=3)
    assert video.waiting.wait(60)
    stop(ready)  # deep in something that reads no requests
    assert isinstance(ready.ask(CANCEL), Done)
    assert ready.replies.answer(number) == TrackEnded(number, "cancelled")
    assert "did not react" in died_once(ready).sentence
    video.open()
    again = ready.track(tmp_path / "hung.zarr", video, resume=True)
    assert ready.replies.answer(again).how == "finished"
    assert ready.replies.of(TrackStarted)[-1].done == 3


def test_what_ends_every_worker_is_given_up_and_the_next_request_begins_anew(
    ready: Line, tiny_file: Path
) -> None:
    ready.replies.on[Working] = ready.kill
    failed = ready.load(tiny_file)
    if isinstance(failed, Failed):
        assert "ended by the system" in failed.sentence
    ready.replies.wait(WorkerDied, count=2)
    died = ready.replies.of(WorkerDied)
    assert [reply.restarting for reply in died] == [True, False] and "smaller" in died[-1].sentence
    eventually(lambda: ready.client.pid is None)
    ready.replies.on.clear()
    assert isinstance(ready.load(tiny_file), Loaded)


def test_without_a_model_every_request_says_so_and_a_hanging_worker_ends_with_its_client(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    for request in (
        Preview(line.image.ref, CLICK),
        Record(line.image.ref, CLICK),
        Track("nowhere", VideoRef("v", (1, 8, 8, 3), path="nowhere"), range(1)),
    ):
        failed = line.ask(request, line.image)
        assert isinstance(failed, Failed) and "No model" in failed.sentence
    assert isinstance(line.ask(UndoChange()), Failed)
    pid = line.client.pid
    stop(line)
    line.close()
    line.close()
    assert not psutil.pid_exists(pid)
    assert line.submit(CANCEL) > 0  # nobody hears it, and nothing breaks


def stop(line: Line) -> None:
    assert line.client.pid is not None
    os.kill(line.client.pid, signal.SIGSTOP)


SCRIPT = """
import os, sys
from pathlib import Path
from napari_samexp.engine import EngineClient, WorkerOptions
from napari_samexp.engine.messages.model import LoadModel, Loaded, Ready
from napari_samexp.engine.messages.prompts import Preview, Previewed
from napari_samexp.engine.sharing import SharedImage
from napari_samexp.types import Prompt
import numpy as np, threading

open(sys.argv[3], "a").write("ran\\n")  # no guard: a worker that imported this script would run it again
loaded = threading.Event()
client = EngineClient(lambda reply: isinstance(reply, Loaded) and loaded.set(), Path(sys.argv[1]), WorkerOptions(threads=1))
client.submit(LoadModel(sys.argv[2], device="cpu"))
assert loaded.wait(100)
image = SharedImage(np.zeros((40, 40), np.uint8))
print(client.pid, flush=True)
if sys.argv[4] == "wait":
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["killed", "exits"])
def test_a_worker_ends_with_its_viewer(tmp_path: Path, tiny_file: Path, end: str) -> None:
    script = tmp_path / "viewer.py"
    script.write_text(SCRIPT)
    ran = tmp_path / "ran"
    mode = "wait" if end == "killed" else "exit"
    command = [sys.executable, str(script), str(tmp_path / "session"), str(tiny_file), str(ran), mode]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as viewer:
        assert viewer.stdout is not None and viewer.stderr is not None
        worker = int(viewer.stdout.readline())
        assert psutil.pid_exists(worker) or end == "exits"
        if end == "killed":
            viewer.kill()
        viewer.wait(100)
        eventually(lambda: not psutil.pid_exists(worker), "the worker is an orphan")
        said = viewer.stderr.read()
    eventually(lambda: not shared_blocks(viewer.pid), "shared memory is left")
    assert ran.read_text() == "ran\n"
    assert end == "killed" or said == ""


def test_a_worker_without_torch_says_so_and_is_not_started_over_and_over(
    make_line: Callable[..., Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch on this computer')")
    monkeypatch.syspath_prepend(str(tmp_path))  # the new process gets this search path
    line = make_line()
    failed = line.ask(LoadModel("starter"))
    assert isinstance(failed, Failed) and "install torch" in failed.sentence
    assert [died.restarting for died in line.replies.of(WorkerDied)] == [False]
