"""A session without a window and without a worker: what it asks for, what it shows, and what it refuses."""

from __future__ import annotations

import os
import queue
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_samexp.engine.client import EngineClient
from napari_samexp.engine.messages.base import (
    CANCEL,
    CONTINUE,
    PAUSE,
    RESET_RECENT,
    Control,
    Done,
    Failed,
    Progress,
    Reply,
    Request,
    VideoRef,
    WorkerDied,
    Working,
)
from napari_samexp.engine.messages.model import Loaded, LoadModel, ModelInfo, Ready
from napari_samexp.engine.messages.prompts import (
    ChangeRecording,
    ChosenMask,
    ClearPrior,
    LoadPrior,
    Preview,
    Previewed,
    PriorChanged,
    PriorState,
    Record,
    RecordingInfo,
    RememberFrame,
    RemoveRecording,
    SavePrior,
    UndoChange,
)
from napari_samexp.engine.messages.tracking import (
    FrameDone,
    Keep,
    Kept,
    PauseChanged,
    Track,
    TrackEnded,
    TrackStarted,
)
from napari_samexp.engine.sharing import read_shared
from napari_samexp.errors import (
    ImageError,
    PriorError,
    PromptError,
    SamexpError,
    SettingsError,
    StoreError,
    VideoError,
)
from napari_samexp.io import elsewhere
from napari_samexp.io.label_edits import EditableLabels, edited_frames
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video
from napari_samexp.session import (
    LastRun,
    Leftover,
    Preferences,
    Session,
    default_store,
    left_sessions,
    lost_frames,
    model_offers,
    next_lost,
    previous_lost,
    select_frames,
)
from napari_samexp.session.folders import MOST_FORMER, SessionFolder, sessions_dir, settings_file
from napari_samexp.session.frames import frames_from_details, speed
from napari_samexp.session.preferences import load_preferences, save_preferences
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import FrameResult, ObjectScore, Prompt, RunIdentity
from tests import hostile_archive

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
        self.say = on_reply
        self.asked: list[tuple[int, Request]] = []
        self.videos: list[VideoRef] = []
        self.started = self.closed = False

    def start(self) -> None:
        self.started = True

    def submit(self, request: Request, holds: tuple[object, ...] = ()) -> int:
        self.asked.append((len(self.asked) + 1, request))
        return len(self.asked)

    def share_video(self, source: Any) -> VideoRef:
        self.videos.append(VideoRef("shared", source.shape, stream=len(self.videos) + 1))
        return self.videos[-1]

    def release_video(self, ref: VideoRef) -> None:
        self.videos = [other for other in self.videos if other != ref]

    def close(self) -> None:
        self.closed = True

    def last(self, kind: type[Request]) -> tuple[int, Any]:
        return next(item for item in reversed(self.asked) if isinstance(item[1], kind))

    def count(self, kind: type[Request]) -> int:
        return sum(isinstance(request, kind) for _, request in self.asked)


class SessionHarness:
    """A session on the test's thread, its fake engine, and what its signals told."""

    def __init__(self, home: Path) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.session = Session(deliver=self._calls.put, home=home, make_engine=self._make)
        self.told: list[str] = []
        self.jobs: list[str] = []
        self.session.notice.connect(self.told.append)
        self.session.tracking.job_changed.connect(lambda job: self.jobs.append(job.state))

    def _make(self, on_reply: Callable[[Reply], None]) -> FakeEngine:
        self.engine = FakeEngine(on_reply)
        return self.engine

    def say(self, *replies: Reply) -> None:
        for reply in replies:
            self.engine.say(reply)
        while not self._calls.empty():
            self._calls.get()()

    def wait(self) -> None:
        """Run what comes from the thread aside."""
        self._calls.get(timeout=100)()

    def answer(self, kind: type[Request], reply: type[Reply], *values: Any) -> None:
        self.say(reply(self.engine.last(kind)[0], *values))

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


@pytest.fixture
def session(tmp_path: Path) -> Iterator[SessionHarness]:
    session = SessionHarness(tmp_path / "home")
    yield session
    session.session.close()
    session.session.close()
    assert session.engine.closed


def store_at(path: Path, **details: Any) -> LabelStore:
    identity = RunIdentity("v", "p", "m", "s")
    return LabelStore.create(path, shape=(6, 8, 10), labels={1: "a"}, identity=identity, details=details)


def result(index: int, score: ObjectScore = GOOD) -> FrameResult:
    labels = np.zeros((8, 10), np.uint16)
    labels[0, index] = 1
    return FrameResult(index, labels, {1: score})


# ---- the model


def test_graphs_are_a_setting_of_the_model(session: SessionHarness, tmp_path: Path) -> None:
    session.session.load_model(graphs=True)
    number, request = session.engine.last(LoadModel)
    assert request == LoadModel("starter", "auto", "float32", graphs=True)
    session.say(Loaded(number, INFO, PriorState(), ""))
    kept, _ = load_preferences(settings_file(tmp_path / "home"))
    assert kept.graphs
    session.session.load_model(dtype="bfloat16")
    assert session.engine.last(LoadModel)[1].graphs


def test_a_model_is_loaded_with_progress_and_kept_in_the_settings(
    session: SessionHarness, tmp_path: Path
) -> None:
    states = []
    session.session.models.changed.connect(states.append)
    session.session.load_model("sam2_hiera_tiny", dtype="bfloat16")
    number, request = session.engine.last(LoadModel)
    assert request == LoadModel("sam2_hiera_tiny", "auto", "bfloat16")
    session.say(
        Progress(number, "bytes", 5, 10), Loaded(number, INFO, PriorState((info("a"),)), "It does not fit.")
    )
    assert [(s.state, s.doing, s.done, s.usable) for s in states] == [
        ("loading", "", 0, False),
        ("loading", "bytes", 5, False),
        ("ready", "", 0, True),
    ]
    assert session.told == ["It does not fit."]
    assert [recording.key for recording in session.session.recordings.all] == ["a"]
    kept, _ = load_preferences(settings_file(tmp_path / "home"))
    assert (kept.model, kept.dtype) == ("sam2_hiera_tiny", "bfloat16")


def test_a_model_that_fails_leaves_the_one_in_use(session: SessionHarness) -> None:
    models = session.session.models
    session.session.load_model("bad")
    session.answer(LoadModel, Failed, "Bad file.")
    assert (models.state.state, models.state.sentence, models.state.usable) == ("failed", "Bad file.", False)
    session.load()
    session.session.load_model("worse")
    assert models.state.state == "loading" and models.state.info == INFO
    session.answer(LoadModel, Failed, "Worse file.")
    assert (models.state.state, models.state.name) == ("ready", "tiny.safetensors")
    assert models.state.sentence == "Worse file." and session.told == ["Bad file.", "Worse file."]
    assert session.session.settings.model == "tiny.safetensors"


def test_only_the_model_asked_for_last_counts(session: SessionHarness) -> None:
    session.session.load_model("first")
    first, _ = session.engine.last(LoadModel)
    session.session.load_model("second")
    session.say(Progress(first, "bytes", 1, 2), Loaded(first, INFO, PriorState()))
    assert session.session.models.state.state == "loading" and session.session.models.state.usable
    other = replace(INFO, name="second")
    session.answer(LoadModel, Loaded, other, PriorState())
    assert (session.session.models.state.state, session.session.models.state.info) == ("ready", other)
    session.session.load_model("third")
    session.session.models.cancel()
    assert [request for _, request in session.engine.asked].count(CANCEL) == 1


def test_a_worker_that_dies_is_shown_until_its_successor_has_the_model(session: SessionHarness) -> None:
    session.load()
    number, _ = session.engine.last(LoadModel)
    models = session.session.models
    session.say(WorkerDied(0, "It died; again.", True))
    assert (models.state.state, models.state.usable, session.told) == ("loading", False, ["It died; again."])
    asked = len(session.engine.asked)
    session.say(
        Ready(0, 1, PriorState((info("a"),)), "An older state."),
        Loaded(number, INFO, PriorState((info("a"),))),
    )
    assert models.state.state == "ready" and session.told[-1] == "An older state."
    assert len(session.session.recordings.all) == 1 and len(session.engine.asked) == asked
    session.say(WorkerDied(0, "It died.", True), Failed(number, "The file is gone."))
    assert (models.state.state, models.state.sentence) == ("failed", "The file is gone.")
    session.load()
    session.say(WorkerDied(0, "Given up.", False))
    assert (models.state.state, models.state.sentence) == ("failed", "Given up.")


def test_the_offers_say_what_they_cost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAPARI_SAMEXP_CACHE", str(tmp_path))
    (tmp_path / "sam2.1_hiera_tiny.pt").touch()
    offers = {offer.name: offer for offer in model_offers()}
    assert next(iter(offers)) == "starter" and offers["starter"].here
    assert offers["sam2.1_hiera_tiny"].here and not offers["sam_vit_h"].here
    assert (offers["sam_vit_h"].family, offers["sam_vit_h"].licence) == ("SAM 1", "Apache-2.0")
    assert offers["sam_vit_h"].bytes == 2564550879
    assert [name for name, offer in offers.items() if offer.suggested] == ["edgetam"] == list(offers)[1:2]
    assert offers["edgetam"].family == "EdgeTAM" and 55e6 < offers["edgetam"].bytes < 57e6


# ---- the prompt


def test_every_change_of_the_prompt_asks_for_a_preview(session: SessionHarness) -> None:
    prompting, shown = session.session.prompting, []
    prompting.preview_changed.connect(shown.append)
    prompting.set_image(IMAGE, "p")
    prompting.set_prompt(CLICK)
    assert session.engine.count(Preview) == 0  # there is no model yet
    session.load()
    assert prompting.pending and session.engine.count(Preview) == 1
    session.preview()
    assert not prompting.pending and (shown[-1].chosen, shown[-1].presence, shown[-1].hover) == (
        1,
        4.0,
        False,
    )
    assert np.argwhere(shown[-1].mask()).tolist() == [[0, 8]]
    assert np.argwhere(shown[-1].mask(0)).tolist() == [[0, 0]]
    prompting.choose_mask(2)
    assert prompting.preview is not None and prompting.preview.chosen == 2
    with pytest.raises(SettingsError, match="0 to 2"):
        prompting.choose_mask(3)
    session.session.change_settings(side=128)
    assert session.engine.last(Preview)[1].side == 128
    session.preview()
    assert prompting.preview.chosen == 2
    prompting.set_prompt(Prompt())
    assert shown[-1] is None and prompting.preview is None
    assert [item for item in shown if item is None] == [None]


def test_late_answers_are_dropped(session: SessionHarness) -> None:
    session.load()
    prompting = session.session.prompting
    prompting.set_image(IMAGE)
    prompting.set_prompt(CLICK)
    first, _ = session.engine.last(Preview)
    prompting.set_prompt(Prompt.from_lists([(1, 1)]))
    bits = np.zeros((1, 10), np.uint8)
    session.say(Previewed(first, (8, 10), (0.5,), 1.0, 0, bits))
    assert prompting.preview is None and prompting.pending
    session.answer(Preview, Failed, "Too large.")
    assert session.told == ["Too large."] and not prompting.pending


def test_a_worker_that_dies_over_a_preview_is_told_once(session: SessionHarness) -> None:
    session.load()
    prompting = session.session.prompting
    prompting.set_image(IMAGE)
    prompting.set_prompt(CLICK)
    number, _ = session.engine.last(Preview)
    session.say(WorkerDied(0, "It died.", True), Failed(number, "It died."))
    assert session.told == ["It died."] and not prompting.pending


def test_hovering_previews_a_click_that_was_not_made(session: SessionHarness) -> None:
    session.load()
    prompting = session.session.prompting
    prompting.hover((1, 1))
    prompting.set_image(IMAGE)
    assert session.engine.count(Preview) == 0
    prompting.set_prompt(CLICK)
    prompting.hover((5, 6))
    _, request = session.engine.last(Preview)
    assert request.prompt.points_xy.tolist() == [[3, 2], [5, 6]] and prompting.prompt is CLICK
    session.preview()
    assert prompting.preview is not None and prompting.preview.hover
    prompting.hover((50, 6))
    prompting.hover(None)
    assert session.engine.count(Preview) == 3 and session.engine.last(Preview)[
        1
    ].prompt.points_xy.tolist() == [[3, 2]]


def test_recording_empties_the_prompt_once_it_is_on_disk(session: SessionHarness) -> None:
    session.load()
    prompting, made = session.session.prompting, []
    prompting.recorded.connect(made.append)
    prompting.set_image(IMAGE, "cat.jpg")
    prompting.set_prompt(CLICK)
    prompting.choose_mask(1)
    prompting.record(3, "cat")
    _, request = session.engine.last(Record)
    assert (request.label, request.name, request.mask_index, request.prompt) == (3, "cat", 1, CLICK)
    assert prompting.prompt is CLICK
    session.answer(Record, PriorChanged, PriorState((info("a", 3, "cat"),), True))
    assert [item.name for item in made] == ["cat"] and prompting.prompt.is_empty
    assert session.session.recordings.undoable and session.session.recordings.labels == (3,)

    prompting.set_prompt(CLICK)
    prompting.record(3)
    other = Prompt.from_lists([(1, 1)])
    prompting.set_prompt(other)  # the person has gone on
    session.answer(Record, PriorChanged, PriorState((info("a"), info("b"))))
    assert prompting.prompt is other
    prompting.record(3)
    session.answer(Record, Failed, "Full.")
    assert prompting.prompt is other and session.told == ["Full."]


def test_bad_prompts_change_nothing(session: SessionHarness) -> None:
    prompting = session.session.prompting
    with pytest.raises(ImageError, match="no image"):
        prompting.set_prompt(CLICK)
    with pytest.raises(ImageError):
        prompting.record()
    prompting.set_image(IMAGE)
    with pytest.raises(PromptError, match="nothing to record"):
        prompting.record()
    prompting.set_prompt(CLICK)
    with pytest.raises(SettingsError, match="No model"):
        prompting.record()
    with pytest.raises(PromptError, match="outside"):
        prompting.set_prompt(Prompt.from_lists([(30, 2)]))
    with pytest.raises(PromptError, match="1001"):
        prompting.set_prompt(Prompt.from_lists([(1, 1)] * 1001))
    with pytest.raises(ImageError):
        prompting.set_image(np.zeros(3))
    assert prompting.prompt is CLICK and prompting.image is not None
    prompting.set_image(None)
    assert prompting.image is None and prompting.prompt.is_empty and not session.engine.asked


# ---- the recordings


def test_recordings_are_edited_by_their_keys(session: SessionHarness, tmp_path: Path) -> None:
    recordings = session.session.recordings
    recordings.rename("a", "new")
    recordings.relabel("a", 4)
    recordings.switch("a", on=False)
    recordings.remove("a")
    recordings.clear()
    recordings.undo()
    recordings.load(tmp_path / "p.safetensors", append=True)
    assert [request for _, request in session.engine.asked] == [
        ChangeRecording("a", name="new"),
        ChangeRecording("a", label=4),
        ChangeRecording("a", enabled=False),
        RemoveRecording("a"),
        ClearPrior(),
        UndoChange(),
        LoadPrior(str(tmp_path / "p.safetensors"), append=True),
    ]
    state = PriorState((info("a", 1, "x"), info("b", 3, enabled=False), info("c", 1)), True)
    session.answer(ChangeRecording, PriorChanged, state)
    assert (recordings.labels, recordings.next_label(), recordings.name_of(1)) == ((1,), 2, "x")
    session.answer(RemoveRecording, Failed, "Gone.")
    assert session.told == ["Gone."] and len(recordings.all) == 3


def test_what_was_saved_is_known(session: SessionHarness, tmp_path: Path) -> None:
    recordings, saved = session.session.recordings, []
    recordings.saved.connect(saved.append)
    with pytest.raises(PriorError, match="no recording"):
        recordings.save(tmp_path / "p")
    recordings.show(PriorState((info("a"),)))
    assert recordings.unsaved
    recordings.save(tmp_path / "p")
    session.answer(SavePrior, Failed, "Read-only.")
    assert recordings.unsaved and session.told == ["Read-only."]
    recordings.save(tmp_path / "p")
    session.answer(SavePrior, Done)
    assert not recordings.unsaved and saved == [tmp_path / "p"]
    recordings.show(PriorState((info("a", name="new"),)))
    assert recordings.unsaved
    recordings.load(tmp_path / "q")
    session.answer(LoadPrior, PriorChanged, PriorState((info("z"),)))
    assert not recordings.unsaved


# ---- tracking


def test_a_run_is_shown_as_it_goes(session: SessionHarness, tmp_path: Path) -> None:
    tracking, results, done, shown = session.session.tracking, session.session.results, [], []
    tracking.frame_done.connect(done.append)
    results.labels_changed.connect(shown.append)
    path = tmp_path / "s.zarr"
    number = session.track(path)
    _, request = session.engine.last(Track)
    assert (request.store, list(request.frames), request.keep) == (str(path), list(range(6)), frozenset())
    with pytest.raises(StoreError, match="already"):
        tracking.track(store=tmp_path / "t.zarr")
    with pytest.raises(VideoError, match="being tracked"):
        tracking.set_video(None)
    with store_at(path) as store:
        session.say(Working(number, "tracking"), TrackStarted(number, str(path), (6, 8, 10), {1: "a"}, 0, 6))
        for index, score in ((0, GOOD), (1, LOST), (2, GOOD)):
            store.write(result(index, score))
            session.say(FrameDone(number, index, {1: score}, 0.5))
        assert done == [0, 1, 2] and results.scores[1] == {1: LOST}
        assert (results.next_lost(0), results.previous_lost(5), results.next_lost(1)) == (1, 1, None)
        assert (tracking.job.done, tracking.job.total, tracking.job.rate, tracking.job.left_s) == (
            3,
            6,
            2.0,
            1.5,
        )
        tracking.pause()
        session.say(PauseChanged(number, True))
        tracking.resume()
        session.say(PauseChanged(number, False))
        tracking.reset_memory()
        tracking.cancel()
        session.say(TrackEnded(number, "cancelled"))
    controls = [request for _, request in session.engine.asked if isinstance(request, Control)]
    assert controls == [PAUSE, CONTINUE, RESET_RECENT, CANCEL]
    assert session.jobs == ["starting", *["tracking"] * 4, "paused", "tracking", "cancelled"]
    assert tracking.job.resumable and not session.told
    tracking.resume()
    assert session.engine.last(Track)[1].resume
    assert len(shown) == 1 and results.labels is shown[0] and shown[0][1, 0, 1] == 1


def test_an_interrupted_run_goes_on_by_itself_if_it_got_anywhere(
    session: SessionHarness, tmp_path: Path
) -> None:
    session.load()
    model, _ = session.engine.last(LoadModel)
    number = session.track(tmp_path / "s.zarr", overwrite=True)
    store_at(tmp_path / "s.zarr").close()
    loaded = Loaded(model, INFO, PriorState())
    session.say(TrackEnded(number, "interrupted", "It died."), loaded)
    assert session.session.tracking.job.state == "interrupted" and session.engine.count(Track) == 1
    session.session.tracking.resume()
    number, request = session.engine.last(Track)
    assert request.overwrite  # nothing had been replaced yet
    started = TrackStarted(number, str(tmp_path / "s.zarr"), (6, 8, 10), {1: "a"}, 0, 6)
    session.say(
        started, FrameDone(number, 0, {1: GOOD}, 0.1), TrackEnded(number, "interrupted", "It died."), loaded
    )
    number, request = session.engine.last(Track)
    assert session.engine.count(Track) == 3 and request.resume and not request.overwrite
    session.say(replace(started, id=number), FrameDone(number, 1, {1: GOOD}, 0.1), PauseChanged(number, True))
    session.say(TrackEnded(number, "interrupted", "It died."), loaded)
    assert session.engine.count(Track) == 3  # it was paused, and stays so
    session.session.tracking.cancel()
    assert session.session.tracking.job.state == "cancelled"


def test_painted_frames_are_left_alone(session: SessionHarness, tmp_path: Path) -> None:
    tracking, results = session.session.tracking, session.session.results
    path = tmp_path / "s.zarr"
    number = session.track(path)
    with store_at(path) as store:
        session.say(TrackStarted(number, str(path), (6, 8, 10), {1: "a"}, 0, 6))
        assert results.labels is not None
        results.labels[2, 0, 0] = 1
        keep, request = session.engine.last(Keep)
        assert request == Keep(frozenset({2}))
        store.write(result(2))
        session.say(FrameDone(number, 2, {1: GOOD}, 0.1))
        assert results.labels[2, 0, 0] == 1 and results.labels[2, 0, 2] == 0
        session.say(Kept(keep, frozenset({2})), TrackEnded(number, "finished"))
    results.labels[3, 0, 0] = 1
    assert session.engine.count(Keep) == 1  # nobody writes any more
    assert results.edited == {2, 3}
    with pytest.raises(StoreError, match="painted by hand"):
        tracking.track(store=path, overwrite=True)
    tracking.track(store=path, again=True)
    _, request = session.engine.last(Track)
    assert (request.keep, request.again, request.resume) == (frozenset({2, 3}), True, True)
    session.answer(Track, Failed, "No.")
    tracking.track(range(2, 3), store=path, again=True, over_edits=True)
    assert session.engine.last(Track)[1].keep == {3} == edited_frames(path) == results.edited
    session.answer(Track, Failed, "No.")
    results.release_edited([3])
    results.mark_edited([5])
    tracking.track(store=path, overwrite=True, over_edits=True)
    assert session.engine.last(Track)[1].keep == frozenset() and results.labels is None
    assert session.told == ["No.", "No."] and session.jobs[-2:] == ["failed", "starting"]


def test_nothing_is_lost_in_painted_frames(session: SessionHarness, tmp_path: Path) -> None:
    results, told = session.session.results, []
    results.edited_changed.connect(lambda: told.append(results.lost_frames()))
    assert results.edited == frozenset() and results.lost_frames() == []
    path = tmp_path / "s.zarr"
    number = session.track(path)
    store_at(path).close()
    session.say(TrackStarted(number, str(path), (6, 8, 10), {1: "a", 2: "b"}, 0, 6))
    for index in range(6):
        session.say(FrameDone(number, index, {1: LOST if index in (1, 2, 4) else GOOD, 2: GOOD}, 0.1))
    session.say(TrackEnded(number, "finished"))
    assert results.lost_frames() == [1, 2, 4] == results.lost_frames(1) and results.lost_frames(2) == []
    assert results.labels is not None
    results.labels[2, 0, 0] = 1
    results.labels[2, 0, 1] = 1  # the second stroke on a frame decides nothing more
    assert told == [[1, 4]]
    assert (results.next_lost(1), results.previous_lost(4), results.scores[2][1].lost) == (4, 1, True)
    results.release_edited([2])
    assert told == [[1, 4], [1, 2, 4]]


def test_a_frame_is_remembered_as_painted_or_as_prompted(session: SessionHarness, tmp_path: Path) -> None:
    tracking, remembered = session.session.tracking, []
    session.session.corrections.remembered.connect(remembered.append)
    with pytest.raises(VideoError, match="no video"):
        session.session.corrections.remember_frame(0, 1)
    tracking.set_video(VIDEO)
    with pytest.raises(SettingsError, match="no labels"):
        session.session.corrections.remember_frame(0, 1)
    with pytest.raises(VideoError, match="no frame 6"):
        session.session.corrections.remember_frame(6, 1)
    path = tmp_path / "s.zarr"
    number = session.track(path)
    with store_at(path) as store:
        store.write(result(4))
    session.say(TrackStarted(number, str(path), (6, 8, 10), {1: "a"}, 0, 6))
    session.session.recordings.show(PriorState((info("a", 1, "cat"),)))
    with pytest.raises(SettingsError, match="nowhere in frame 3"):
        session.session.corrections.remember_frame(3, 1)
    session.session.corrections.remember_frame(4, 1)
    _, request = session.engine.last(RememberFrame)
    assert (request.index, request.label, request.name, request.store) == (4, 1, "cat", str(path))
    assert np.argwhere(read_shared(request.mask)).tolist() == [[0, 4]] if _alive(request) else True
    session.answer(RememberFrame, PriorChanged, PriorState((info("a"), info("b"))))
    assert remembered == [4] and len(session.session.recordings.all) == 2
    session.session.corrections.remember_frame(2, 1, prompt=CLICK)
    request = session.engine.last(RememberFrame)[1]
    assert request.mask is None and request.prompt is CLICK
    session.answer(RememberFrame, Failed, "No.")
    assert session.told == ["No."]
    with pytest.raises(PromptError, match="no clicks on this frame"):
        session.session.corrections.remember_frame(2, 1, prompt=Prompt())


def test_the_mask_that_was_seen_becomes_the_frames_label(session: SessionHarness, tmp_path: Path) -> None:
    tracking, results = session.session.tracking, session.session.results
    tracking.set_video(VIDEO)
    path = tmp_path / "s.zarr"
    number = session.track(path)
    with store_at(path) as store:
        store.write(result(4))
    session.say(TrackStarted(number, str(path), (6, 8, 10), {1: "a", 2: "b"}, 0, 6))
    assert results.labels is not None
    results.labels[4, 7, 9] = 2
    seen = np.zeros((8, 10), bool)
    seen[2, 3] = True
    session.session.corrections.remember_frame(4, 1, prompt=CLICK, shown=seen)
    assert results.labels[4][0, 4] == 1  # as it was, until the memory is safe
    session.answer(RememberFrame, PriorChanged, PriorState((info("b"),)))
    assert np.argwhere(results.labels[4]).tolist() == [[2, 3], [7, 9]] and results.labels[4][7, 9] == 2
    assert 4 in results.labels.edited


def test_the_chosen_mask_is_shown_before_the_others(session: SessionHarness) -> None:
    prompting = session.session.prompting
    session.load()
    prompting.set_image(IMAGE)
    shown: list[Any] = []
    prompting.preview_changed.connect(shown.append)
    prompting.set_prompt(CLICK)
    number = session.engine.last(Preview)[0]
    bits = np.zeros((3, 10), np.uint8)
    bits[1, 0] = 0x80
    whole = Previewed(number, (8, 10), (0.1, 0.9, 0.3), 4.0, 1, np.full((3, 10), 0x80, np.uint8))
    session.say(ChosenMask(number, 1, replace(whole, bits=bits)))
    assert len(shown) == 1 and prompting.pending
    assert shown[0].chosen == 1 and shown[0].mask().sum() == 1
    session.say(whole)
    assert len(shown) == 1 and not prompting.pending  # it is on the screen already
    prompting.choose_mask(0)
    assert [preview.chosen for preview in shown] == [1, 0] and shown[1].mask().sum() == 10


def test_another_choice_than_the_one_that_came_first_waits_for_all(session: SessionHarness) -> None:
    prompting = session.session.prompting
    session.load()
    prompting.set_image(IMAGE)
    prompting.set_prompt(CLICK)
    number = session.engine.last(Preview)[0]
    prompting.choose_mask(2)
    whole = Previewed(number, (8, 10), (0.1, 0.9, 0.3), 4.0, 1, np.zeros((3, 10), np.uint8))
    session.say(ChosenMask(number, 1, whole))
    assert prompting.preview is None
    session.say(whole)
    assert prompting.preview is not None and prompting.preview.chosen == 2


def test_an_error_comes_with_its_code(session: SessionHarness) -> None:
    codes: list[tuple[str, str]] = []
    session.session.notice.connect(lambda sentence, code: codes.append((sentence, code)))
    session.session.load_model("a.pt")
    session.answer(LoadModel, Failed, "It is hostile.", "weights-refused")
    session.say(WorkerDied(0, "It died.", True, "out-of-memory"))
    assert codes == [("It is hostile.", "weights-refused"), ("It died.", "out-of-memory")]
    with pytest.raises(VideoError):
        session.session.corrections.remember_frame(0, 1)


def test_a_recording_without_a_name_is_called_like_its_label(session: SessionHarness) -> None:
    session.load()
    session.session.recordings.show(PriorState((info("a", 1, "cat"), info("b", 2, "dog"))))
    prompting = session.session.prompting
    prompting.set_image(np.zeros((8, 10, 3), np.uint8))
    for label, name in ((1, "cat"), (3, "")):
        prompting.set_prompt(CLICK)
        prompting.record(label)
        assert session.engine.last(Record)[1].name == name


def _alive(request: Any) -> bool:
    try:
        read_shared(request.mask)
    except SamexpError:
        return False
    return True


def test_videos_are_paths_for_the_worker_or_shared_from_here(session: SessionHarness, tmp_path: Path) -> None:
    tracking, seen = session.session.tracking, []
    tracking.video_changed.connect(seen.append)
    tracking.set_video(VIDEO, name="layer")
    assert tracking.video is not None and (tracking.video.stream, tracking.video.name) == (1, "layer")
    np.save(tmp_path / "x.npy", VIDEO)
    with pytest.raises(VideoError):
        tracking.set_video(tmp_path / "x.npy")
    assert tracking.video.stream == 1 and len(session.engine.videos) == 1
    folder = tmp_path / "clip"
    folder.mkdir()
    from PIL import Image

    Image.fromarray(IMAGE).save(folder / "0.png")
    tracking.set_video(folder)
    assert tracking.video == VideoRef("clip", (1, 8, 10, 3), path=str(folder), fps=tracking.video.fps)
    tracking.set_video(open_video(VIDEO), path=folder, limits=(0, 9))
    assert (tracking.video.path, tracking.video.limits, tracking.video.name) == (str(folder), (0, 9), "clip")
    tracking.set_video(None)
    assert seen[-1] is None
    with pytest.raises(VideoError, match="no video"):
        tracking.track(store=tmp_path / "s.zarr")


def test_the_last_run_comes_back(tmp_path: Path) -> None:
    from PIL import Image

    home, path, clip = tmp_path / "home", tmp_path / "s.zarr", tmp_path / "clip"
    clip.mkdir()
    for index in range(6):
        Image.fromarray(IMAGE).save(clip / f"{index}.png")
    first = SessionHarness(home)
    first.session.change_settings(recent=2)
    first.session.tracking.set_video(clip)
    first.session.tracking.track(store=path)
    first.session.close()
    settings = {"recent": 2, "of another version": 1}
    with store_at(path, video_path=str(clip), frames={"range": [1, 6, 1]}, settings=settings) as store:
        store.write(result(1, LOST))

    second = SessionHarness(home)
    assert second.session.settings.last_run == LastRun(str(path), str(clip))
    found: list[Leftover] = []
    second.session.left_found.connect(found.append)
    second.session.find_leftovers()
    second.wait()
    assert found == [Leftover(LastRun(str(path), str(clip)), None)]
    second.session.reopen(found[0], resume=True)
    second.wait()
    second.wait()
    number, request = second.engine.last(Track)
    assert (request.resume, list(request.frames), request.settings) == (
        True,
        [1, 2, 3, 4, 5],
        TrackSettings(recent=2),
    )
    assert request.video.path == str(clip) and second.session.results.scores == {1: {1: LOST}}
    second.say(TrackStarted(number, str(path), (6, 8, 10), {1: "a"}, 1, 5))
    assert second.session.results.scores == {1: {1: LOST}} and second.session.tracking.job.done == 1
    with pytest.raises(StoreError, match="before you open"):
        second.session.tracking.open_run(path)
    second.say(TrackEnded(number, "finished"))
    second.session.tracking.open_run(tmp_path / "gone.zarr")
    second.wait()
    assert "gone.zarr" in second.told[-1]
    second.session.close()


def test_a_store_can_be_looked_at_without_its_video(session: SessionHarness, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    with store_at(path, video_path="gone.mp4", frames="nonsense", settings=3) as store:
        for index in range(6):
            store.write(result(index))
    session.session.tracking.open_run(path, resume=True)
    session.wait()
    assert session.session.tracking.job.state == "finished" and session.engine.count(Track) == 0
    assert (
        isinstance(session.session.results.labels, EditableLabels)
        and len(session.session.results.scores) == 6
    )
    with pytest.raises(StoreError, match="no run to go on"):
        session.session.tracking.resume()


def test_a_video_on_another_computer_is_opened_only_by_who_tracked_it(
    session: SessionHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(elsewhere, "WINDOWS", True)
    monkeypatch.setattr(
        "napari_samexp.session.videos.open_video", lambda path, **_: asked.append(path) or clip
    )
    clip = open_video(np.stack([IMAGE] * 6))
    path, video = tmp_path / "s.zarr", r"\\host\share\clip.mp4"
    with store_at(path, video_path=video) as store:
        store.write(result(0))
    session.session.tracking.open_run(path)
    session.wait()
    assert not asked and session.session.tracking.video is None
    assert "on the computer host" in session.told[-1] and video in session.told[-1]
    assert session.session.results.labels is not None  # the labels are shown all the same

    session.session.change_settings(last_run=LastRun(str(path), video))
    session.session.open_run(path)
    session.wait()
    assert asked == [video]


def test_scores_of_earlier_frames_come_with_a_run_that_is_resumed(
    session: SessionHarness, tmp_path: Path
) -> None:
    path = tmp_path / "s.zarr"
    with store_at(path) as store:
        store.write(result(0, LOST))
    number = session.track(path, resume=True)
    session.say(
        TrackStarted(number, str(path), (6, 8, 10), {1: "a"}, 1, 6), FrameDone(number, 1, {1: GOOD}, 0.1)
    )
    session.wait()
    assert session.session.results.scores == {0: {1: LOST}, 1: {1: GOOD}}


# ---- settings, folders, and small questions


def test_settings_are_kept_and_checked(session: SessionHarness, tmp_path: Path) -> None:
    seen = []
    session.session.settings_changed.connect(seen.append)
    session.session.change_settings(recent=3, hover=True)
    session.session.change_settings(recent=3)
    assert len(seen) == 1 and session.session.tracking.settings.recent == 3
    for bad in ({"recent": 99}, {"hover": 1}, {"nothing": 1}, {"model": None}):
        with pytest.raises(SettingsError):
            session.session.change_settings(**bad)
    again = SessionHarness(tmp_path / "home")
    assert again.session.settings == session.session.settings and again.session.first_notice == ""
    again.session.close()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"track": {"recent": 99}}', b'{"hover": 3}', b"x" * 2**21, b"[" * 9999]
)
def test_damaged_settings_begin_anew(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "settings.json"
    file.write_bytes(content)
    preferences, notice = load_preferences(file)
    assert preferences == Preferences() and "begin anew" in notice


def test_settings_of_another_version_keep_what_is_known(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(
        '{"model": "m", "new": 1, "track": {"recent": 2, "newer": 1}, "last_run": {"store": "s"}}'
    )
    preferences, notice = load_preferences(file)
    assert (preferences.model, preferences.track.recent, preferences.last_run) == (
        "m",
        2,
        LastRun("s"),
    ) and not notice
    save_preferences(preferences, tmp_path / "settings.json" / "impossible")  # only the log hears of it


def test_the_folder_of_a_sitting_stays_if_it_holds_recordings(tmp_path: Path) -> None:
    home = tmp_path / "home"
    empty = SessionHarness(home)
    empty.session.close()
    assert not empty.session.folder.exists()

    folders = []
    for number in range(MOST_FORMER + 2):
        folder = SessionFolder(sessions_dir(home))
        (folder.path / "prior" / "pictures").mkdir(parents=True)
        (folder.path / "prior" / f"00000001-0001-{number}.safetensors").touch()
        (folder.path / "prior" / "pictures" / "a.png").touch()
        folders.append(folder)
    assert left_sessions(sessions_dir(home)) == []  # all of them are in use
    for folder in folders:
        folder.close()
    left = left_sessions(sessions_dir(home))
    assert len(left) == MOST_FORMER and not any(session.crashed for session in left)

    crashed = SessionFolder(sessions_dir(home))
    (crashed.path / "prior").mkdir()
    (crashed.path / "prior" / "00000002-0001-7.safetensors").touch()
    crashed._lock.release()  # as the system does when a process is killed
    (found,) = [session for session in left_sessions(sessions_dir(home)) if session.crashed]
    assert found.path == crashed.path

    later = SessionHarness(home)
    chosen = next(
        session for session in later.session.left_sessions() if (session.prior.parent / "pictures").exists()
    )
    later.session.recover(chosen)
    later.wait()
    assert later.engine.last(LoadPrior)[1] == LoadPrior(str(chosen.prior))
    assert (later.session.folder / "prior" / "pictures" / "a.png").exists()
    later.answer(LoadPrior, PriorChanged, PriorState((info("a"),)))
    later.wait()
    assert not chosen.path.exists() and later.session.recordings.unsaved
    later.session.close()


def test_home_is_the_users_own_place_or_what_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NAPARI_SAMEXP_HOME", str(tmp_path))
    assert settings_file() == tmp_path / "settings.json" and sessions_dir() == tmp_path / "sessions"
    monkeypatch.delenv("NAPARI_SAMEXP_HOME")
    assert "napari-samexp" in str(settings_file()) and "napari-samexp" in str(sessions_dir())


def test_activity_is_told_and_slow_modules_are_imported_aside(session: SessionHarness) -> None:
    seen: list[str] = []
    session.session.activity.connect(seen.append)
    session.session.start()
    assert session.engine.started
    session.load()
    session.session.prompting.set_image(IMAGE)
    session.session.prompting.set_prompt(CLICK)
    session.answer(Preview, Working, "encoding")
    session.preview()
    assert seen == ["encoding", ""]


def test_nothing_is_delivered_after_the_end(tmp_path: Path) -> None:
    session = SessionHarness(tmp_path / "home")
    session.engine.say(WorkerDied(0, "On its way.", True))
    with session.session:
        pass
    session.say(WorkerDied(0, "Too late.", True))
    assert session.told == []


@pytest.mark.parametrize(
    ("choice", "options", "expected"),
    [
        ("all", {}, range(10)),
        ("all", {"direction": "backward"}, range(9, -1, -1)),
        ("from here", {"current": 4}, range(4, 10)),
        ("from here", {"current": 4, "direction": "backward"}, range(4, 10)),
        ("backward from here", {"current": 4}, range(4, -1, -1)),
        ("range", {"first": 2, "last": 5}, range(2, 6)),
        ("range", {"first": 5, "last": 2, "direction": "backward"}, range(5, 1, -1)),
        ("range", {"first": 7}, range(7, 10)),
    ],
)
def test_frames_are_chosen(choice: Any, options: dict[str, Any], expected: range) -> None:
    assert select_frames(choice, 10, **options) == expected


@pytest.mark.parametrize(
    ("choice", "options"), [("some", {}), ("range", {"last": 10}), ("from here", {"current": -1})]
)
def test_frames_that_are_not_there_are_refused(choice: Any, options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        select_frames(choice, 10, **options)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ({"range": [8, 2, -1]}, range(8, 2, -1)),
        ({"list": [1, 3]}, [1, 3]),
        ({"range": [0, 99, 1]}, range(10)),
        ({"list": []}, range(10)),
        ({"range": ["a"]}, range(10)),
        (None, range(10)),
    ],
)
def test_frames_of_a_store_are_found_again(frames: Any, expected: Any) -> None:
    assert frames_from_details({"frames": frames}, 10) == expected


def test_lost_frames_are_found_in_both_directions() -> None:
    scores = {5: {1: LOST, 2: GOOD}, 2: {1: GOOD, 2: LOST}, 7: {1: GOOD, 2: GOOD}}
    assert lost_frames(scores) == [2, 5] and lost_frames(scores, 1) == [5]
    assert (next_lost(scores, 2), next_lost(scores, 5), next_lost(scores, 0, 1)) == (5, None, 5)
    assert lost_frames(scores, painted={2}) == [5]
    assert (next_lost(scores, 0, None, {2}), previous_lost(scores, 5, None, {2})) == (5, None)
    assert (previous_lost(scores, 5), previous_lost(scores, 2), previous_lost(scores, 9, 2)) == (2, None, 2)


def test_speed_is_that_of_the_last_frames() -> None:
    assert speed([], 5) == (None, None)
    assert speed([100.0, *[0.5] * 20], 10) == (2.0, 5.0)


def test_a_home_that_cannot_be_written_keeps_nobody_from_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    home = tmp_path / "home"
    home.write_text("a file where the folder should be")
    session = SessionHarness(home)
    assert session.session.folder.is_relative_to(tmp_path / "temporary")
    notice = session.session.first_notice
    assert "No folder for this session" in notice and "are kept in" in notice and "\n" not in notice
    session.session.change_settings(hover=True)  # which cannot be kept, and are used all the same
    assert session.session.settings.hover
    folder = session.session.folder
    session.session.close()
    assert not folder.exists()

    monkeypatch.setattr(tempfile, "tempdir", str(home))  # nowhere
    with pytest.raises(SamexpError, match="No folder for this session"):
        SessionHarness(home)


@pytest.mark.parametrize("day", [0, 10**9])
def test_a_clock_that_is_set_back_makes_no_sitting_the_oldest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, day: int
) -> None:
    """Else the newest recordings would be offered last, and thrown away first."""
    parent = sessions_dir(tmp_path / "home")
    old = parent / "20260131-120000-abcdef"  # as earlier versions called them
    (old / "prior").mkdir(parents=True)
    (old / "prior" / "00000001-0001-1.safetensors").touch()
    folders = [old] + [recorded_in(SessionFolder(parent)) for _ in range(MOST_FORMER)]
    monkeypatch.setattr(time, "time", lambda: float(day))
    monkeypatch.setattr(time, "time_ns", lambda: day * 10**9)
    folder = SessionFolder(parent)
    file = recorded_in(folder, close=False) / "prior" / "00000001-0001-1.safetensors"
    os.utime(file, (day, day))
    folder.close()
    left = [session.path for session in left_sessions(parent)]
    assert left == [folder.path, *folders[::-1]][:MOST_FORMER]
    assert not old.exists()


HOSTILE = {
    "00000001-aaaaaa": "thesis",
    "00000002-aaaaaa/prior": "thesis/prior",
    "00000003-aaaaaa/prior/00000001-0001-1.safetensors": "thesis/prior/00000001-0001-1.safetensors",
    "00000004-aaaaaa/lock": "thesis/lock",
    "thesis-of-mine": "thesis",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_session_of_links_is_none_and_harms_nothing(tmp_path: Path, name: str) -> None:
    home, sent = tmp_path / "home", tmp_path / "sent"
    left = sent / "00000005-aaaaaa"
    for folder in (left, *(sent / link.split("/")[0] for link in HOSTILE)):
        (folder / "prior").mkdir(parents=True)
        (folder / "prior" / "00000001-0001-1.safetensors").touch()
    hostile_archive.write_thesis(sessions_dir(home))
    hostile_archive.send(sent, sessions_dir(home), {name: HOSTILE[name]})
    found = [session.path.name for session in left_sessions(sessions_dir(home))]
    assert left.name in found and name.split("/")[0] not in found and "thesis" not in found
    for _ in range(MOST_FORMER + 1):  # ends of sessions, which remove old ones
        recorded_in(SessionFolder(sessions_dir(home)))
    assert not (sessions_dir(home) / left.name).exists()
    assert (sessions_dir(home) / name).is_symlink()
    hostile_archive.require_untouched(sessions_dir(home))


def test_a_former_session_with_other_files_in_it_is_not_removed(tmp_path: Path) -> None:
    parent = sessions_dir(tmp_path / "home")
    folders = [recorded_in(SessionFolder(parent)) for _ in range(2)]
    (folders[0] / "prior" / "notes.txt").write_text("mine")
    (folders[1] / "prior" / "pictures").mkdir()
    (folders[1] / "prior" / "pictures" / "more").mkdir()
    for session in left_sessions(parent):
        session.discard()
    assert [folder.exists() for folder in folders] == [True, True]
    (folders[0] / "prior" / "notes.txt").unlink()
    for session in left_sessions(parent):
        session.discard()
    assert [folder.exists() for folder in folders] == [False, True]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among its files")
def test_recorded_images_that_are_links_or_pipes_are_not_taken_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    there = recorded_in(SessionFolder(sessions_dir(home))) / "prior" / "pictures"
    there.mkdir()
    (there / "a.png").touch()
    (there / "b.png").symlink_to("/dev/zero")
    os.mkfifo(there / "c.png")
    (there / "d").symlink_to(hostile_archive.write_thesis(tmp_path))
    later = SessionHarness(home)
    later.session.recover(later.session.left_sessions()[0])
    later.wait()
    taken = later.session.folder / "prior" / "pictures"
    assert [path.name for path in taken.iterdir()] == ["a.png"]
    later.session.close()
    hostile_archive.require_untouched(tmp_path)


@pytest.mark.parametrize("target", ["thesis/notes", "nowhere"])
def test_new_labels_do_not_go_through_a_link_beside_a_video(tmp_path: Path, target: str) -> None:
    hostile_archive.write_thesis(tmp_path)
    (tmp_path / "clip.labels.zarr").symlink_to(tmp_path / target)
    assert default_store("clip.mp4", tmp_path) == tmp_path / "clip.labels-2.zarr"


def recorded_in(folder: SessionFolder, *, close: bool = True) -> Path:
    (folder.path / "prior").mkdir()
    (folder.path / "prior" / "00000001-0001-1.safetensors").touch()
    if close:
        folder.close()
    return folder.path


def test_the_worker_takes_no_change_for_one_of_another_sitting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal of a folder may name requests of a client that is gone; the clock may stand still."""
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    firsts = {next(EngineClient(lambda reply: None, tmp_path)._numbers) for _ in range(10)}
    assert len(firsts) == 10 and min(firsts) > 0


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("x" * 250 + ".mp4", "x" * 150),
        ("ü" * 120 + ".mp4", "ü" * 75),
        ("what? <now>: 1/2*.mp4", "2_"),
        ('a"b|c\\d?.tif', "a_b_c_d_"),
        ("aux.mp4", "aux_"),
        ("com1.old.mp4", "com1.old_"),
        ("ends. .mp4", "ends"),
        ("...", "video"),
    ],
)
def test_a_new_store_has_a_name_for_every_system(tmp_path: Path, name: str, stem: str) -> None:
    assert default_store(name, tmp_path) == tmp_path / f"{stem}.labels.zarr"


def test_a_new_store_never_takes_a_name_that_is_used(tmp_path: Path) -> None:
    first = default_store("clip.mp4", tmp_path)
    assert first == tmp_path / "clip.labels.zarr"
    first.touch()
    assert default_store("clip.mp4", tmp_path) == tmp_path / "clip.labels-2.zarr"
    assert default_store("", tmp_path) == tmp_path / "video.labels.zarr"
