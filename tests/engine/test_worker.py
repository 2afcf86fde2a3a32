"""A real worker with a tiny model: what it answers, between which frames, and that it says no in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from napari_samexp.engine.messages.base import (
    CANCEL,
    CONTINUE,
    PAUSE,
    RESET_RECENT,
    Done,
    Failed,
    VideoRef,
    Working,
)
from napari_samexp.engine.messages.model import Loaded, LoadModel
from napari_samexp.engine.messages.prompts import (
    ChangeRecording,
    ChosenMask,
    LoadPrior,
    Preview,
    Previewed,
    PriorChanged,
    Record,
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
from napari_samexp.engine.sharing import SharedArray, SharedImage
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video
from napari_samexp.sam.weights.loading import load_model
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, record
from napari_samexp.tracking.run import open_store, track_into
from napari_samexp.types import Prompt
from tests.engine.engine_tools import CLICK, FRAMES, OTHER_CLICK, GatedVideo, Line, frames, image

SETTINGS = TrackSettings(recent=2, pointers=3)


def labels_of(store: Path) -> np.ndarray:
    return np.asarray(LabelStore.open(store, mode="r").array[:])


def scores_of(store: Path) -> np.ndarray:
    """Presence of object 1 in each frame."""
    scores = LabelStore.open(store, mode="r").scores
    return np.array([scores[index][1].presence for index in range(FRAMES)])


@pytest.fixture(scope="module")
def plain_run(plain_store: Path) -> np.ndarray:
    return labels_of(plain_store)


@pytest.fixture(scope="module")
def plain_scores(plain_store: Path) -> np.ndarray:
    return scores_of(plain_store)


@pytest.fixture(scope="module")
def plain_store(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run in this process, with nothing in between."""
    model = load_model(tiny_file, device="cpu")
    features = model.encode(image())
    prior = PriorMemory().with_recording(
        *record(model, image(), features, CLICK, model.segment(features, CLICK), name="disc")
    )
    video, path = open_video(frames()), tmp_path_factory.mktemp("plain") / "labels.zarr"
    with open_store(path, model, prior, SETTINGS, video) as store:
        for _ in track_into(store, Tracker(model, prior, SETTINGS), video, range(FRAMES)):
            pass
    return path


# ---- the model and previews


def test_loading_says_what_the_model_is(ready: Line, tiny_file: Path) -> None:
    loaded = ready.load(tiny_file)
    assert isinstance(loaded, Loaded)
    assert (loaded.model.name, loaded.model.family, loaded.model.has_memory) == (
        "tiny-random",
        "SAM 2.1",
        True,
    )
    assert (loaded.model.image_size, loaded.model.side_multiple, loaded.model.device) == (64, 32, "cpu")
    assert [reply.what for reply in ready.replies.of(Working)] == ["loading"]


def test_a_file_that_is_no_model_leaves_the_one_in_use(ready: Line, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing of the kind")
    failed = ready.load(bad)
    assert isinstance(failed, Failed) and str(bad) in failed.sentence and not failed.trace
    assert isinstance(ready.preview(), Previewed)


def test_a_preview_is_what_the_model_says(ready: Line, tiny_file: Path) -> None:
    model = load_model(tiny_file, device="cpu")
    expected = model.segment(model.encode(image()), OTHER_CLICK)
    found = ready.preview(OTHER_CLICK)
    assert found.iou == pytest.approx(tuple(expected.iou), abs=1e-5)
    assert (found.best, found.hw) == (expected.best, image().shape[:2])
    assert found.presence == pytest.approx(expected.presence, abs=1e-4)
    for row, bits in enumerate(found.bits):
        mask = np.unpackbits(bits, count=image()[..., 0].size).reshape(found.hw).astype(bool)
        assert (mask != expected.mask(row)).mean() < 0.01


@pytest.mark.parametrize("index", [None, 0, 2])
def test_the_chosen_mask_of_a_preview_comes_first(ready: Line, index: int | None) -> None:
    number = ready.submit(Preview(ready.image.ref, CLICK, mask_index=index), ready.image)
    whole = ready.replies.answer(number)
    (chosen,) = ready.replies.of(ChosenMask, id=number)
    assert ready.replies.all.index(chosen) < ready.replies.all.index(whole)
    assert chosen.index == (whole.best if index is None else index)
    np.testing.assert_array_equal(chosen.preview.bits[chosen.index], whole.bits[chosen.index])
    assert (chosen.preview.iou, chosen.preview.best, chosen.preview.hw) == (whole.iou, whole.best, whole.hw)


def test_an_image_is_hashed_once_for_all_clicks_and_recordings(
    tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_samexp.engine import encoded_images, recorder
    from napari_samexp.engine.journal import PriorJournal
    from napari_samexp.tracking import recording

    hashed: list[str] = []

    def counted(image: np.ndarray) -> str:
        hashed.append(hash_of(image))
        return hashed[-1]

    hash_of = recording.image_hash
    for module in (encoded_images, recorder, recording):
        monkeypatch.setattr(module, "image_hash", counted)
    journal = PriorJournal(tmp_path / "prior")
    made = recorder.Recorder(journal, encoded_images.EncodedImages(2))
    made.load(LoadModel(str(tiny_file), device="cpu"), lambda done, total: None)
    shared = SharedImage(image(), "disc")
    for click in (CLICK, OTHER_CLICK):
        list(made.preview(1, Preview(shared.ref, click), lambda what: None))
    for label in (1, 2):
        made.record(2, Record(shared.ref, CLICK, label), lambda what: None)
    shared.release()
    assert len(hashed) == 1
    assert {entry.image_hash for entry in journal.prior.recordings} == set(hashed)


def test_a_image_is_encoded_once_however_it_is_named(ready: Line) -> None:
    grey = np.arange(1600, dtype=np.uint16).reshape(40, 40)
    first, same = SharedImage(grey, "first"), SharedImage(grey.copy(), "same")
    for shared in (first, first, same):
        assert isinstance(ready.ask(Preview(shared.ref, CLICK), shared), Previewed)
    ready.ask(Preview(same.ref, CLICK, side=32), same)
    assert [reply.what for reply in ready.replies.of(Working)].count("encoding") == 2
    first.release()
    same.release()


def test_the_latest_preview_wins(ready: Line) -> None:
    video = GatedVideo()
    ready.record()
    run = ready.track(ready.folder / "latest.zarr", video)
    assert video.waiting.wait(60)  # the worker is busy: whatever is asked for now has to wait
    prompts = [Prompt.from_lists([(x, 20)]) for x in range(20, 40)]
    numbers = [ready.submit(Preview(ready.image.ref, prompt), ready.image) for prompt in prompts]
    video.open(1)
    assert isinstance(ready.replies.answer(numbers[-1]), Previewed)
    assert [reply.id for reply in ready.replies.of(Previewed, Failed)] == [numbers[-1]]
    ready.ask(CANCEL)
    assert ready.replies.answer(run).how == "cancelled"
    video.open()


def test_a_bad_prompt_is_one_sentence(ready: Line) -> None:
    failed = ready.preview(Prompt.from_lists([(500, 20)]))
    assert isinstance(failed, Failed) and "outside" in failed.sentence and not failed.trace
    failed = ready.ask(Preview(ready.image.ref, CLICK, side=33), ready.image)
    assert isinstance(failed, Failed) and "33" in failed.sentence
    gone = SharedImage(image()[::2])
    gone.release()
    assert isinstance(ready.ask(Preview(gone.ref, CLICK)), Failed)


def test_a_image_that_needs_too_much_memory_is_a_sentence(ready: Line) -> None:
    pid = ready.client.pid
    assert pid is not None
    process = psutil.Process(pid)
    before = process.rlimit(psutil.RLIMIT_AS)
    process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + 2**28, before[1]))
    failed = ready.ask(Preview(ready.image.ref, CLICK, side=4096), ready.image)
    process.rlimit(psutil.RLIMIT_AS, before)
    assert isinstance(failed, Failed) and "smaller encode side" in failed.sentence and not failed.trace
    assert isinstance(ready.preview(), Previewed)
    assert ready.client.pid == pid


# ---- the prior


def test_recordings_are_made_changed_and_taken_back(ready: Line) -> None:
    one = ready.record(name="one").prior.recordings
    two = ready.record(OTHER_CLICK, label=2, name="two").prior.recordings
    assert [(info.label, info.name, info.image_name) for info in two] == [
        (1, "one", "disc"),
        (2, "two", "disc"),
    ]
    assert two[0].key == one[0].key != two[1].key
    assert two[0].thumbnail.shape == image().shape and two[0].presence > 0
    np.testing.assert_array_equal(two[1].prompt.points_xy, OTHER_CLICK.points_xy)

    changed = ready.ask(ChangeRecording(two[0].key, label=7, name="new", enabled=False)).prior
    assert next((info.label, info.name, info.enabled) for info in changed.recordings) == (7, "new", False)
    removed = ready.ask(RemoveRecording(two[1].key)).prior
    assert [info.key for info in removed.recordings] == [two[0].key]
    for expected in (changed, None, None, None):
        undone = ready.ask(UndoChange())
        assert isinstance(undone, PriorChanged)
        if expected is not None:
            assert [info.key for info in undone.prior.recordings] == [
                info.key for info in expected.recordings
            ]
    assert undone.prior.recordings == ()
    assert isinstance(ready.ask(RemoveRecording("nobody")), Failed)
    assert isinstance(ready.ask(ChangeRecording(two[0].key, label=0)), Failed)


def test_a_prior_file_is_saved_and_loaded(ready: Line, tmp_path: Path) -> None:
    key = ready.record(name="saved").prior.recordings[0].key
    ready.ask(ChangeRecording(key, enabled=False))
    path = tmp_path / "prior.safetensors"
    assert isinstance(ready.ask(SavePrior(str(path))), Done)
    assert [entry.name for entry in PriorMemory.load(path).recordings] == ["saved"]
    both = ready.ask(LoadPrior(str(path), append=True)).prior.recordings
    assert len(both) == 2 and both[0].key != both[1].key
    alone = ready.ask(LoadPrior(str(path))).prior.recordings
    assert [(info.name, info.enabled) for info in alone] == [("saved", False)]
    failed = ready.ask(LoadPrior(str(tmp_path / "missing")))
    assert isinstance(failed, Failed) and "missing" in failed.sentence
    assert isinstance(ready.ask(SavePrior(str(tmp_path / "no" / "folder"))), Failed)


def test_another_model_encodes_the_recorded_images_again(
    ready: Line, tiny_file: Path, other_file: Path, tmp_path: Path
) -> None:
    ready.record(name="kept")
    ready.ask(SavePrior(str(tmp_path / "a.safetensors")))
    loaded = ready.load(other_file)
    assert not loaded.notice
    assert [(info.name, info.usable) for info in loaded.prior.recordings] == [("kept", True)]
    ready.ask(SavePrior(str(tmp_path / "b.safetensors")))
    a, b = (PriorMemory.load(tmp_path / f"{name}.safetensors") for name in "ab")
    assert a.fingerprint != b.fingerprint and a.recordings[0].weights != b.recordings[0].weights

    for file in (ready.folder / "prior" / "pictures").iterdir():
        file.unlink()
    loaded = ready.load(tiny_file)  # which cannot see the images: the recordings stay for the other model
    assert "cannot be used" in loaded.notice and [info.usable for info in loaded.prior.recordings] == [False]
    assert isinstance(ready.record(), Failed)
    assert isinstance(ready.ask(LoadPrior(str(tmp_path / "a.safetensors"))), PriorChanged)
    failed = ready.ask(LoadPrior(str(tmp_path / "b.safetensors")))
    assert isinstance(failed, Failed) and "not among the given ones" in failed.sentence


# ---- tracking


def test_a_run_gives_the_labels_of_a_run_in_process(ready: Line, plain_run: np.ndarray) -> None:
    ready.record()
    path = ready.folder / "plain.zarr"
    number = ready.track(path, frames())
    assert ready.replies.answer(number) == TrackEnded(number, "finished")
    started = ready.replies.of(TrackStarted)[0]
    assert (started.shape, started.names, started.done, started.total) == (
        (FRAMES, 48, 64),
        {1: "disc"},
        0,
        FRAMES,
    )
    done = ready.replies.of(FrameDone)
    assert [reply.index for reply in done] == list(range(FRAMES))
    assert all(reply.scores[1].presence > 0 and reply.seconds > 0 for reply in done)
    np.testing.assert_array_equal(labels_of(path), plain_run)
    assert labels_of(path).any()


def test_previews_and_recordings_between_frames_do_not_touch_the_run(
    ready: Line, plain_run: np.ndarray
) -> None:
    ready.record()
    video, path = GatedVideo(), ready.folder / "between.zarr"
    number = ready.track(path, video)
    for index in range(FRAMES):
        assert video.waiting.wait(60)
        asked = ready.submit(Preview(ready.image.ref, OTHER_CLICK), ready.image)
        other = ready.submit(Record(ready.image.ref, OTHER_CLICK, 2), ready.image) if index == 4 else 0
        video.waiting.clear()
        video.open(1)
        assert isinstance(ready.replies.answer(asked), Previewed)
        assert not other or isinstance(ready.replies.answer(other), PriorChanged)
    assert ready.replies.answer(number).how == "finished"
    np.testing.assert_array_equal(labels_of(path), plain_run)
    order = [type(reply) for reply in ready.replies.all if isinstance(reply, FrameDone | Previewed)]
    assert order == [FrameDone, Previewed] * FRAMES


def test_pause_takes_effect_after_the_frame_in_work(ready: Line, plain_run: np.ndarray) -> None:
    ready.record()
    video, path = GatedVideo(), ready.folder / "paused.zarr"
    number = ready.track(path, video)
    video.open(2)
    ready.replies.wait(FrameDone, count=2)
    assert video.waiting.wait(60)  # the third frame is in work
    ready.submit(PAUSE)
    ready.submit(Keep(frozenset()))
    video.open()
    ready.replies.wait(PauseChanged)
    assert [reply.index for reply in ready.replies.of(FrameDone)] == [0, 1, 2]
    assert isinstance(ready.preview(), Previewed)
    assert isinstance(ready.ask(LoadModel("starter")), Failed)
    assert isinstance(ready.replies.answer(ready.track(path, video)), Failed)
    assert len(ready.replies.of(FrameDone)) == 3
    ready.submit(CONTINUE)
    assert not ready.replies.wait(PauseChanged, count=2).paused
    assert ready.replies.answer(number).how == "finished"
    np.testing.assert_array_equal(labels_of(path), plain_run)


def test_cancel_takes_effect_before_the_next_frame_and_the_run_resumes(
    ready: Line, plain_run: np.ndarray
) -> None:
    ready.record()
    video, path = GatedVideo(), ready.folder / "cancelled.zarr"
    number = ready.track(path, video)
    video.open(4)
    ready.replies.wait(FrameDone, count=4)
    assert video.waiting.wait(60)
    assert isinstance(ready.ask(CANCEL), Done)  # although the fifth frame never comes
    assert ready.replies.answer(number) == TrackEnded(number, "cancelled")
    assert [reply.index for reply in ready.replies.of(FrameDone)] == [0, 1, 2, 3]
    video.open()
    ready.record(OTHER_CLICK, label=2)  # a resumed run has the prior that it began with
    again = ready.track(path, video, resume=True)
    assert ready.replies.answer(again).how == "finished"
    assert ready.replies.of(TrackStarted)[-1].done == 4
    np.testing.assert_array_equal(labels_of(path), plain_run)


def test_frames_that_were_painted_are_left_alone(ready: Line) -> None:
    ready.record()
    video, path = GatedVideo(), ready.folder / "kept.zarr"
    number = ready.track(path, video, keep=frozenset({1}))
    video.open(1)
    ready.replies.wait(FrameDone)
    assert video.waiting.wait(60)
    ready.submit(Keep(frozenset({2, 5})))  # 2 is in work already
    video.open()
    assert ready.replies.answer(number).how == "finished"
    assert ready.replies.of(TrackStarted)[0].total == FRAMES - 1
    assert [reply.index for reply in ready.replies.of(FrameDone)] == [0, 2, 3, 4, 6, 7, 8, 9]
    kept = ready.replies.wait(Kept)
    after = [
        reply for reply in ready.replies.all[ready.replies.all.index(kept) :] if isinstance(reply, FrameDone)
    ]
    assert not {reply.index for reply in after} & kept.frames


def test_done_frames_are_tracked_again_when_asked(ready: Line) -> None:
    ready.record()
    path = ready.folder / "again.zarr"
    ready.replies.answer(ready.track(path, frames()))
    first = labels_of(path)
    assert isinstance(
        ready.replies.answer(ready.track(path, frames())), Failed
    )  # nothing is replaced unasked
    ready.replies.all.clear()
    number = ready.track(path, frames(), frames=range(4, 8), resume=True, again=True, keep=frozenset({6}))
    assert ready.replies.answer(number).how == "finished"
    assert [reply.index for reply in ready.replies.of(FrameDone)] == [4, 5, 7]
    untouched = [0, 1, 2, 3, 6, 8, 9]
    np.testing.assert_array_equal(labels_of(path)[untouched], first[untouched])


def test_a_video_file_is_opened_by_the_worker(ready: Line, tmp_path: Path, plain_run: np.ndarray) -> None:
    ready.record()
    folder = tmp_path / "clip"
    folder.mkdir()
    for index, frame in enumerate(frames()):
        Image.fromarray(frame).save(folder / f"{index:03d}.png")
    ref = VideoRef("clip", frames().shape, path=str(folder))
    path = tmp_path / "labels.zarr"
    assert ready.ask(Track(str(path), ref, range(FRAMES), SETTINGS)).how == "finished"
    np.testing.assert_array_equal(labels_of(path), plain_run)
    assert LabelStore.open(path, mode="r").details["video_path"] == str(folder)
    failed = ready.ask(Track(str(path), VideoRef("clip", frames().shape, path="gone"), range(FRAMES)))
    assert isinstance(failed, Failed) and "gone" in failed.sentence


def test_a_frame_that_cannot_be_read_ends_the_run_with_a_sentence(ready: Line) -> None:
    class Broken(GatedVideo):
        def frame(self, index: int) -> np.ndarray:
            if index == 2:
                raise ValueError("the array computes nonsense")
            return frames()[index]

    ready.record()
    number = ready.track(ready.folder / "broken.zarr", Broken())
    ended = ready.replies.answer(number)
    assert ended.how == "failed" and "Frame 2 cannot be read" in ended.sentence
    assert len(ready.replies.of(FrameDone)) == 2
    assert isinstance(ready.preview(), Previewed)


@pytest.mark.parametrize("painted", [True, False])
def test_a_corrected_frame_joins_the_run_and_the_prior(
    ready: Line, painted: bool, plain_scores: np.ndarray
) -> None:
    ready.record()
    video, path = GatedVideo(), ready.folder / f"corrected-{painted}.zarr"
    number = ready.track(path, video)
    video.open(4)
    ready.replies.wait(FrameDone, count=4)
    assert video.waiting.wait(60)
    ref, mask = ready.client.share_video(video), np.zeros((48, 64), bool)
    mask[5:20, 40:60] = True
    shared = SharedArray.of(mask)
    what = {"mask": shared.ref} if painted else {"prompt": OTHER_CLICK}
    ready.submit(PAUSE)
    video.open(1)
    ready.replies.wait(PauseChanged)
    asked = ready.submit(RememberFrame(ref, 3, 1, store=str(path), name="disc", **what), shared)
    video.open()
    prior = ready.replies.answer(asked).prior
    assert [(info.painted, info.image_name) for info in prior.recordings] == [
        (False, "disc"),
        (painted, "gated@3"),
    ]
    wrong = ready.submit(RememberFrame(ref, 3, 9, store=str(path), **what), shared)
    assert "not 9" in ready.replies.answer(wrong).sentence
    ready.ask(CANCEL)
    assert ready.replies.answer(number).how == "cancelled"
    # what was taught is part of the run, also when it goes on later
    assert ready.replies.answer(ready.track(path, video, resume=True)).how == "finished"
    scores = scores_of(path)
    np.testing.assert_array_equal(scores[:5], plain_scores[:5])
    assert (scores[5:] != plain_scores[5:]).all()
    shared.release()


def test_memory_is_reset_between_two_frames(ready: Line, plain_scores: np.ndarray) -> None:
    ready.record()
    video, path = GatedVideo(), ready.folder / "reset.zarr"
    number = ready.track(path, video)
    video.open(4)
    ready.replies.wait(FrameDone, count=4)
    assert video.waiting.wait(60)
    ready.submit(RESET_RECENT)
    video.open()
    assert ready.replies.answer(number).how == "finished"
    scores = scores_of(path)
    np.testing.assert_array_equal(scores[:5], plain_scores[:5])  # the fifth frame was in work
    assert (scores[5:7] != plain_scores[5:7]).all()  # later ones have no older frames to look at anyway


def test_a_run_that_cannot_begin_makes_no_store(ready: Line, tmp_path: Path) -> None:
    failed = ready.replies.answer(ready.track(tmp_path / "none.zarr", frames()))
    assert isinstance(failed, Failed) and "no recording" in failed.sentence
    key = ready.record().prior.recordings[0].key
    ready.ask(ChangeRecording(key, enabled=False))
    failed = ready.replies.answer(ready.track(tmp_path / "none.zarr", frames()))
    assert isinstance(failed, Failed) and "switched off" in failed.sentence
    assert not (tmp_path / "none.zarr").exists()
