"""Kills of the model's process under a client that lives on, while it loads, previews, records, saves and tracks."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from napari_samexp.engine import EngineClient, WorkerOptions
from napari_samexp.engine.messages.base import Reply, Request
from napari_samexp.engine.messages.model import Loaded, LoadModel, Ready
from napari_samexp.engine.messages.prompts import LoadPrior, Preview, Previewed, Record, SavePrior
from napari_samexp.engine.messages.tracking import FrameDone, Track, TrackEnded
from napari_samexp.engine.sharing import SharedImage
from napari_samexp.samples import load_sample
from napari_samexp.session.videos import reference_at
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import Prompt
from tests.kill.checks import Tally, finished, recorded_names, same_labels, whole_files

__all__ = ["kill_workers"]

PATIENCE_S = 300.0
PHASES = ("load", "preview", "record", "save", "track", "resume")


class KillableClient:
    """An engine client, the replies it has had, and a way to kill its worker."""

    def __init__(self, folder: Path) -> None:
        self.replies: list[Reply] = []
        self._changed = threading.Condition()
        self.engine = EngineClient(
            self._received, folder, WorkerOptions(threads=1, niceness=0, patience_s=60)
        )

    def _received(self, reply: Reply) -> None:
        with self._changed:
            self.replies.append(reply)
            self._changed.notify_all()

    def until(self, so: Callable[[Reply], bool], since: int = 0) -> Any:
        with self._changed:
            found = self._changed.wait_for(
                lambda: next((r for r in self.replies[since:] if so(r)), None), PATIENCE_S
            )
        assert found is not None, [type(reply).__name__ for reply in self.replies[-8:]]
        return found

    def answer(self, number: int) -> Any:
        return self.until(lambda reply: reply.id == number and reply.final)

    def ask(self, request: Request, *holds: object) -> Any:
        return self.answer(self.engine.submit(request, holds))

    def kill(self) -> None:
        """Kill the worker, and wait until another one has the model; two deaths in a row would be given up."""
        since, pid = len(self.replies), self.engine.pid
        if pid is not None:
            psutil.Process(pid).kill()
            self.until(lambda reply: isinstance(reply, Ready), since)
            self.until(lambda reply: isinstance(reply, Loaded), since)

    def close(self) -> None:
        self.engine.close()


class WorkerRounds:
    """One kill a round, at a moment drawn from the time that the work takes when nobody disturbs it."""

    def __init__(
        self, work: Path, clip: Path, prior: Path, side: int, tally: Tally, rng: random.Random
    ) -> None:
        scene = load_sample()
        self.work, self.prior, self.tally, self.rng = work, prior, tally, rng
        self.client = KillableClient(work / "session")
        self.image = SharedImage(scene.prior, "prior.png")
        self.prompt = Prompt(scene.points_xy, scene.labels)
        self.video = reference_at(str(clip))
        self.settings = TrackSettings(side=side)
        self.names: list[str] = []
        self.lasts: dict[str, float] = {}
        self.number = 0
        self.broken_run: Path | None = None
        self.whole = work / "worker-whole.zarr"

    def begin(self) -> None:
        """Do everything once without a kill: how long it takes, and what tracking gives."""
        self._timed("load", lambda: self.client.ask(LoadModel("starter", device="cpu")))
        self._timed("preview", lambda: self.client.ask(*self._preview()))
        self._take_prior()
        self._timed("record", lambda: self.client.ask(*self._record("first")))
        self.names.append("first")
        self._timed("save", lambda: self.client.ask(SavePrior(str(self.work / "saved.safetensors"))))
        self._take_prior()
        self._timed("track", lambda: self.client.ask(self._track(self.whole)))
        self.lasts["resume"] = self.lasts["track"]

    def round(self, phase: str) -> None:
        self.number += 1
        getattr(self, f"_{phase}_killed")()
        self.tally.killed("worker", phase)
        self.tally.check("the client outlives its worker", self.client.engine.pid is not None)

    def end(self) -> None:
        self.client.close()
        self.image.release()

    # ---- a round of each kind

    def _load_killed(self) -> None:
        number = self.client.engine.submit(LoadModel("starter", device="cpu"))
        self._kill_soon("load")
        self.client.answer(number)
        loaded = self.client.ask(LoadModel("starter", device="cpu"))
        self._names_are(loaded.prior)

    def _preview_killed(self) -> None:
        request, image = self._preview()
        self.client.engine.submit(request, (image,))
        self._kill_soon("preview")
        answer = self.client.ask(*self._preview())
        self.tally.check("the next preview is answered", isinstance(answer, Previewed), answer)

    def _record_killed(self) -> None:
        if len(self.names) > 4:
            self._take_prior()
        name = f"kill {self.number}"
        number = self.client.engine.submit(*self._held(self._record(name)))
        self._kill_soon("record")
        changed = self.client.answer(number)
        self.names.append(name)  # requested once, reported as recorded
        self._names_are(changed.prior)

    def _save_killed(self) -> None:
        path = self.work / "saved.safetensors"
        before = recorded_names(path)
        number = self.client.engine.submit(SavePrior(str(path)))
        self._kill_soon("save")
        between = recorded_names(path)
        self.tally.check("a saved prior is the old or the new one", between in (before, self.names), between)
        self.client.answer(number)
        self.tally.check("a saved prior is whole in the end", recorded_names(path) == self.names)

    def _track_killed(self) -> None:
        self._take_prior()
        self.broken_run = self.work / f"worker-{self.number}.zarr"
        self._killed_run("track", self._track(self.broken_run))

    def _resume_killed(self) -> None:
        store = self.broken_run
        if store is None or not store.exists():
            self._track_killed()
            return
        self._killed_run("resume", self._track(store, resume=True))
        ended = self.client.ask(self._track(store, resume=True))
        self.tally.check("a run goes on after kills", ended.how == "finished", ended)
        different = same_labels(store, self.whole, range(self.video.shape[0]))
        self.tally.check("a resumed run equals an uninterrupted one", not different, different)
        self.tally.check("nothing half-written is left", not whole_files(store), whole_files(store))
        self.broken_run = None

    def _killed_run(self, phase: str, request: Track) -> None:
        since = len(self.client.replies)
        number = self.client.engine.submit(request)
        self._kill_soon(phase)
        self.client.answer(number)
        reported = {
            r.index for r in self.client.replies[since:] if isinstance(r, FrameDone) and r.id == number
        }
        store = Path(request.store)
        if store.exists():
            lost = reported - finished(store)
            self.tally.check("no finished frame is lost", not lost, lost)
            different = same_labels(store, self.whole, finished(store))
            self.tally.check("finished frames are as they should be", not different, different)
        else:
            self.tally.check("no finished frame is lost", not reported, reported)

    # ---- what rounds share

    def _kill_soon(self, phase: str) -> None:
        time.sleep(self.rng.uniform(0, 1.2 * self.lasts[phase]))
        self.client.kill()

    def _timed(self, phase: str, call: Callable[[], Any]) -> None:
        began = time.monotonic()
        answer = call()
        assert not isinstance(answer, TrackEnded) or answer.how == "finished", answer
        self.lasts[phase] = time.monotonic() - began

    def _names_are(self, state: Any) -> None:
        there = [info.name for info in state.recordings]
        self.tally.check("no recorded prompt is lost or made twice", there == self.names, (there, self.names))

    def _take_prior(self) -> None:
        self.client.ask(LoadPrior(str(self.prior)))
        self.names = list(recorded_names(self.prior))

    def _preview(self) -> tuple[Preview, SharedImage]:
        return Preview(self.image.ref, self.prompt), self.image

    def _record(self, name: str) -> tuple[Record, SharedImage]:
        return Record(self.image.ref, self.prompt, 1, name), self.image

    def _held(self, asked: tuple[Request, SharedImage]) -> tuple[Request, tuple[SharedImage, ...]]:
        return asked[0], asked[1:]

    def _track(self, store: Path, *, resume: bool = False) -> Track:
        return Track(str(store), self.video, range(self.video.shape[0]), self.settings, resume=resume)


def kill_workers(
    kills: int, work: Path, clip: Path, prior: Path, side: int, tally: Tally, rng: random.Random
) -> None:
    """Kill the worker so many times, each phase in turn."""
    rounds = WorkerRounds(work, clip, prior, side, tally, rng)
    try:
        rounds.begin()
        for number in range(kills):
            rounds.round(PHASES[number % len(PHASES)])
    finally:
        rounds.end()
