"""Runs into a label store: whatever stops one, it goes on as if nothing had happened."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_samexp.errors import PriorError, StoreError
from napari_samexp.io.labels import LabelStore
from napari_samexp.sam import Sam2, load_model
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, open_store, track_into
from napari_samexp.tracking.run import Run, add_to_run, identity_of, run_prior
from tests import ROOT, tiny_run
from tests.parity import golden, parity

FRAMES = tiny_run.FRAMES
KINDS = [("forward", False), ("backward", False), ("forward", True)]  # direction, keep lost frames


@pytest.fixture(scope="module")
def prior(sam21: Sam2) -> PriorMemory:
    return tiny_run.prior_of(sam21, tiny_run.PROMPTS)


@pytest.fixture(scope="module")
def model() -> Sam2:
    """A model that loses its labels in frames of their own, so their memories are of different frames.

    Loaded like that of another process: a copy has its weights at other addresses, which shows in last bits.
    """
    return tiny_run.unsure(golden.load_reference(parity.SELECTION, "SAM 2.1"))


class Setup:
    """All that a run is made from, but the store."""

    def __init__(self, model: Sam2, prior: PriorMemory, settings: TrackSettings) -> None:
        self.model, self.prior, self.settings = model, prior, settings
        self.video = tiny_run.ArrayVideo(tiny_run.drawn_frames())
        self.order = tiny_run.order_of(settings)

    def tracker(self) -> Tracker:
        return Tracker(self.model, self.prior, self.settings)

    def store(self, path: Path, **named: Any) -> LabelStore:
        return open_store(path, self.model, self.prior, self.settings, self.video, resume=True, **named)

    def track(
        self, path: Path, frames: Sequence[int] | None = None, stop_after: int | None = None
    ) -> list[int]:
        """Track into a store as a process of its own would; return the frames that were tracked."""
        tracked: list[int] = []
        with self.store(path) as store:
            for result in track_into(
                store, self.tracker(), self.video, self.order if frames is None else frames
            ):
                tracked.append(result.index)
                if len(tracked) == stop_after:
                    break
        return tracked


def content(path: Path) -> tuple[Any, ...]:
    """Return all that a store says of its frames."""
    with LabelStore.open(path, mode="r") as store:
        return store.array[:].tobytes(), store.scores, store.done.tolist()


def memories(path: Path) -> dict[int, Any]:
    with LabelStore.open(path, mode="r") as store:
        return {
            index: ({name: array.tobytes() for name, array in arrays.items()}, meta)
            for index, (arrays, meta) in store.load_memories().items()
        }


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}-{'keep' if kind[1] else 'skip'}")
def setup(request: pytest.FixtureRequest, model: Sam2, prior: PriorMemory) -> Setup:
    return Setup(model, prior, tiny_run.settings_of(*request.param))


@pytest.fixture(scope="module")
def forward(model: Sam2, prior: PriorMemory) -> Setup:
    return Setup(model, prior, tiny_run.settings_of())


@pytest.fixture(scope="module")
def keeping(model: Sam2, prior: PriorMemory) -> Setup:
    """A run that remembers every frame."""
    return Setup(model, prior, tiny_run.settings_of(keep_lost=True))


@pytest.fixture(scope="module")
def whole(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an uninterrupted run."""
    path = tmp_path_factory.mktemp("whole") / "labels.zarr"
    assert setup.track(path) == list(setup.order)
    return path


# ---- one run


def test_a_store_holds_what_the_tracker_found(setup: Setup, whole: Path) -> None:
    with LabelStore.open(whole, mode="r") as store:
        assert store.done.all()
        assert store.labels == setup.prior.labels
        for result in setup.tracker().run(setup.video, setup.order):
            assert (store.frame(result.index) == result.labels).all()
            assert store.scores[result.index] == result.scores


def test_the_run_is_one_that_could_go_wrong(setup: Setup, whole: Path) -> None:
    """Labels are lost in frames of their own, so that a careless resume would mix their pasts up."""
    with LabelStore.open(whole, mode="r") as store:
        found = [sum(not score.lost for score in store.scores[index].values()) for index in setup.order]
    assert {0, 3} <= set(found)
    assert set(found) & {1, 2} or setup.settings.keep_lost


def test_a_result_is_on_disk_before_it_is_seen(forward: Setup, tmp_path: Path) -> None:
    with forward.store(tmp_path / "s") as store:
        for result in track_into(store, forward.tracker(), forward.video, [0, 1, 2]):
            with LabelStore.open(tmp_path / "s", mode="r") as reader:
                assert reader.done[result.index]
                assert (reader.frame(result.index) == result.labels).all()
                if any(not score.lost for score in result.scores.values()):
                    assert result.index in reader.load_memories()


def test_memories_on_disk_are_bounded(setup: Setup, whole: Path) -> None:
    tracker = setup.tracker()
    list(tracker.run(setup.video, setup.order))
    assert set(memories(whole)) == tracker.remembered
    labels = 3
    assert len(tracker.remembered) <= labels * max(setup.settings.recent, setup.settings.pointers)


def test_frames_that_are_done_are_not_read_again(setup: Setup, whole: Path) -> None:
    setup.video.asked.clear()
    before = content(whole)
    assert setup.track(whole) == []
    assert setup.video.asked == []
    assert content(whole) == before


def test_no_frames_are_nothing_to_do(forward: Setup, tmp_path: Path) -> None:
    assert forward.track(tmp_path / "s", []) == []


# ---- stops


@pytest.mark.parametrize("after", range(1, FRAMES))
def test_a_run_abandoned_at_any_frame_goes_on_as_if_it_had_not_been(
    setup: Setup, whole: Path, tmp_path: Path, after: int
) -> None:
    assert setup.track(tmp_path / "s", stop_after=after) == list(setup.order[:after])
    assert setup.track(tmp_path / "s") == list(setup.order[after:])
    assert content(tmp_path / "s") == content(whole)
    assert memories(tmp_path / "s") == memories(whole)


def test_a_run_abandoned_at_every_frame_goes_on_too(setup: Setup, whole: Path, tmp_path: Path) -> None:
    for index in setup.order:
        assert setup.track(tmp_path / "s", stop_after=1) == [index]
    assert content(tmp_path / "s") == content(whole)
    assert memories(tmp_path / "s") == memories(whole)


class Stop(BaseException):
    """What Ctrl-C is: no Exception."""


@pytest.mark.parametrize("method", ["save_memory", "write", "prune_memories"])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", [1, 5])
def test_a_stop_between_two_writes_loses_nothing(
    keeping: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, before: bool, at: int
) -> None:
    real, calls = getattr(LabelStore, method), []

    def stopped(*args: Any) -> None:
        calls.append(args)
        if before and len(calls) == at:
            raise Stop
        real(*args)
        if len(calls) == at:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(LabelStore, method, stopped)
        with pytest.raises(Stop):
            keeping.track(tmp_path / "s")
    finished = np.flatnonzero(content(tmp_path / "s")[2])
    tracked = keeping.track(tmp_path / "s")
    assert set(finished).isdisjoint(tracked)
    keeping.track(tmp_path / "whole")
    assert content(tmp_path / "s") == content(tmp_path / "whole")
    assert memories(tmp_path / "s") == memories(tmp_path / "whole")


@pytest.mark.parametrize("kind", KINDS[:2], ids=["forward", "backward"])
def test_a_killed_process_loses_no_finished_frame(
    kind: tuple[str, bool], model: Sam2, prior: PriorMemory, tmp_path: Path
) -> None:
    setup = Setup(model, prior, tiny_run.settings_of(*kind))
    command = [sys.executable, "-W", "error", "-m", "tests.tiny_run", tmp_path / "s", kind[0], str(kind[1])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(4)]
        process.kill()
    assert process.returncode != 0
    assert seen == list(setup.order[:4])
    done = [index for index in setup.order if content(tmp_path / "s")[2][index]]
    assert done[:4] == seen
    assert setup.track(tmp_path / "s") == list(setup.order[len(done) :])
    setup.track(tmp_path / "whole")
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_a_half_precision_run_goes_on_exactly(models: dict[str, Any], tmp_path: Path) -> None:
    """Memories are kept as float32, which holds every bfloat16."""
    model = load_model(
        parity.SELECTION / f"{golden.FAMILIES['SAM 2.1']}_state.safetensors",
        device="cpu",
        dtype="bfloat16",
        variant=models["SAM 2.1"].variant,
    )
    prior = tiny_run.prior_of(model, tiny_run.PROMPTS)
    setup = Setup(model, prior, tiny_run.settings_of(keep_lost=True))
    setup.track(tmp_path / "whole", range(6))
    setup.track(tmp_path / "s", range(6), stop_after=3)
    setup.track(tmp_path / "s", range(6))
    assert content(tmp_path / "s") == content(tmp_path / "whole")


# ---- several runs in one store


@pytest.mark.parametrize("after", [1, 4])
def test_two_ranges_of_one_store_do_not_see_each_other(forward: Setup, tmp_path: Path, after: int) -> None:
    first, second = range(6), range(7, FRAMES)
    forward.track(tmp_path / "whole", first)
    forward.track(tmp_path / "whole", second)
    forward.track(tmp_path / "s", first, stop_after=after)
    forward.track(tmp_path / "s", second, stop_after=after)
    forward.track(tmp_path / "s", first)
    forward.track(tmp_path / "s", second)
    assert content(tmp_path / "s") == content(tmp_path / "whole")
    alone = list(forward.tracker().run(forward.video, second))
    with LabelStore.open(tmp_path / "s", mode="r") as store:
        assert store.missing() == [6]
        for result in alone:
            assert (store.frame(result.index) == result.labels).all()
            assert store.scores[result.index] == result.scores


def test_one_tracker_serves_one_range_after_the_other(forward: Setup, tmp_path: Path) -> None:
    tracker = forward.tracker()
    with forward.store(tmp_path / "s") as store:
        for frames in (range(6), range(7, FRAMES)):
            list(track_into(store, tracker, forward.video, frames))
    forward.track(tmp_path / "whole", range(6))
    forward.track(tmp_path / "whole", range(7, FRAMES))
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_a_range_can_be_made_longer(setup: Setup, whole: Path, tmp_path: Path) -> None:
    setup.track(tmp_path / "s", setup.order[:5])
    assert setup.track(tmp_path / "s", setup.order[:9]) == list(setup.order[5:9])
    setup.track(tmp_path / "s")
    assert content(tmp_path / "s") == content(whole)


def test_both_ways_from_one_frame_are_two_runs(model: Sam2, prior: PriorMemory, tmp_path: Path) -> None:
    """The direction is no part of a store's identity, so one may be filled both ways, and in turns."""
    ways = {name: Setup(model, prior, tiny_run.settings_of(name, True)) for name in ("forward", "backward")}
    ranges = {"forward": range(5, FRAMES), "backward": range(5, -1, -1)}
    for name, setup in ways.items():
        setup.track(tmp_path / "whole", ranges[name])
    for count in (3, 2, FRAMES):
        for name, setup in ways.items():
            setup.track(tmp_path / "s", ranges[name], stop_after=count)
    assert content(tmp_path / "s") == content(tmp_path / "whole")
    assert all(content(tmp_path / "s")[2])


def test_a_frame_that_is_tracked_again_leaves_the_later_ones_their_past(
    keeping: Setup, tmp_path: Path
) -> None:
    keeping.track(tmp_path / "s", range(6))
    before = memories(tmp_path / "s")
    assert set(before) == {2, 3, 4, 5}
    with keeping.store(tmp_path / "s") as store:
        store.forget([2])
    assert keeping.track(tmp_path / "s", range(6)) == [2]
    after = memories(tmp_path / "s")
    assert set(after) == set(before)
    assert all(after[index] == before[index] for index in (3, 4, 5))


def test_frames_to_keep_are_left_alone(forward: Setup, tmp_path: Path) -> None:
    with forward.store(tmp_path / "s") as store:
        run = Run(store, forward.tracker(), forward.video, range(6), keep=[1, 4])
        assert run.todo == [0, 2, 3, 5]
        tracked = []
        for result in run:
            tracked.append(result.index)
            run.keep.add(3)
        assert tracked == [0, 2, 5]
        assert store.missing(range(6)) == [1, 3, 4]


# ---- on the way


def test_a_reset_lets_the_next_frame_see_the_prior_alone_also_after_a_stop(
    keeping: Setup, tmp_path: Path
) -> None:
    def part(path: Path, stop: bool) -> None:
        with keeping.store(path) as store:
            run = Run(store, keeping.tracker(), keeping.video, keeping.order)
            for result in run:
                if result.index == 5:
                    run.reset_recent()
                    if stop:
                        break

    part(tmp_path / "whole", stop=False)
    part(tmp_path / "s", stop=True)
    keeping.track(tmp_path / "s")
    assert content(tmp_path / "s") == content(tmp_path / "whole")
    keeping.track(tmp_path / "plain")
    assert content(tmp_path / "s") != content(tmp_path / "plain")


def test_a_memory_of_the_way_is_remembered_also_after_a_stop(forward: Setup, tmp_path: Path) -> None:
    entry, memory = forward.prior.recordings[2], forward.prior.memories[1]

    def part(path: Path, stop: bool) -> None:
        with forward.store(path) as store:
            run = Run(store, forward.tracker(), forward.video, forward.order)
            for result in run:
                if result.index == 4:
                    run.remember(entry, memory)
                    run.remember(entry, memory)  # a second time changes nothing
                    if stop:
                        break

    part(tmp_path / "whole", stop=False)
    part(tmp_path / "s", stop=True)
    forward.track(tmp_path / "s")
    assert content(tmp_path / "s") == content(tmp_path / "whole")
    forward.track(tmp_path / "plain")
    assert content(tmp_path / "s") != content(tmp_path / "plain")


def test_an_added_memory_counts_once_for_a_tracker_of_two_ranges(forward: Setup, tmp_path: Path) -> None:
    with forward.store(tmp_path / "s") as store:
        assert add_to_run(store, forward.prior.recordings[0], forward.prior.memories[3])
        assert not add_to_run(store, forward.prior.recordings[0], forward.prior.memories[3])
        assert add_to_run(store, forward.prior.recordings[3], forward.prior.memories[3])
        assert not add_to_run(store, forward.prior.recordings[3], forward.prior.memories[3])
        tracker = forward.tracker()
        for frames in (range(3), range(6, 8)):
            list(track_into(store, tracker, forward.video, frames))
        other = [result.scores for result in Run(store, forward.tracker(), forward.video, range(8, FRAMES))]
        store.forget(range(8, FRAMES))
        again = [result.scores for result in Run(store, tracker, forward.video, range(8, FRAMES))]
    assert again == other


def test_only_labels_of_the_run_can_be_added(forward: Setup, tmp_path: Path) -> None:
    entry = forward.prior.with_change(0, label=77).recordings[0]
    with forward.store(tmp_path / "s") as store:
        with pytest.raises(PriorError, match="labels 1, 3, 300 and not 77"):
            add_to_run(store, entry, forward.prior.memories[0])
        run = Run(store, forward.tracker(), forward.video, [0])
        with pytest.raises(PriorError, match="77"):
            run.remember(entry, forward.prior.memories[0])


# ---- stores of other runs


def test_a_store_knows_its_run(forward: Setup, tmp_path: Path) -> None:
    with forward.store(tmp_path / "s", details={"note": "x"}) as store:
        assert store.identity == identity_of(forward.model, forward.prior, forward.settings, forward.video)
        assert store.names == forward.prior.names
        assert store.shape == forward.video.shape[:3]
        assert store.details["note"] == "x"
        assert TrackSettings(**store.details["settings"]) == forward.settings
        held = run_prior(store.path)
    assert held is not None
    assert held.fingerprint == forward.prior.fingerprint
    (tmp_path / "empty").mkdir()
    assert run_prior(tmp_path / "empty") is None


def test_the_direction_is_no_part_of_the_identity(model: Sam2, prior: PriorMemory, video: Any) -> None:
    ways = [tiny_run.settings_of(direction) for direction in ("forward", "backward")]
    one, other = (identity_of(model, prior, settings, video) for settings in ways)
    assert one == other
    assert identity_of(model, prior, tiny_run.settings_of(keep_lost=True), video) != one


@pytest.mark.parametrize("what", ["video", "prior", "model", "settings", "number type"])
def test_a_store_of_another_run_is_refused_and_left_as_it_is(
    forward: Setup, models: dict[str, Any], tmp_path: Path, what: str
) -> None:
    forward.track(tmp_path / "s", stop_after=2)
    before = content(tmp_path / "s")
    parts = {
        "model": forward.model,
        "prior": forward.prior,
        "settings": forward.settings,
        "video": forward.video,
    }
    if what == "video":
        parts["video"] = tiny_run.ArrayVideo(forward.video.frames[::-1].copy())
    elif what == "prior":
        parts["prior"] = forward.prior.with_change(0, enabled=False)
    elif what == "settings":
        parts["settings"] = tiny_run.settings_of(keep_lost=True)
    elif what == "model":
        parts["model"] = models["SAM 2"]
    else:
        parts["model"] = copy.deepcopy(forward.model).to(torch.bfloat16)
    different = "model" if what == "number type" else what
    with pytest.raises(StoreError, match=f"(another|other) {different}"):
        open_store(
            tmp_path / "s", *(parts[name] for name in ("model", "prior", "settings", "video")), resume=True
        )
    assert content(tmp_path / "s") == before


def test_a_store_whose_header_tells_of_another_length_is_not_resumed(forward: Setup, tmp_path: Path) -> None:
    forward.track(tmp_path / "s", stop_after=2)
    header = tmp_path / "s" / "zarr.json"
    metadata = json.loads(header.read_text())
    metadata["shape"][0] = 9_000_000
    header.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match=r"9000000.*header is damaged"):
        forward.store(tmp_path / "s")
    with LabelStore.open(tmp_path / "s"):  # nobody holds it
        pass


def test_a_store_is_neither_resumed_nor_replaced_unasked(forward: Setup, tmp_path: Path) -> None:
    forward.track(tmp_path / "s", stop_after=2)
    parts = forward.model, forward.prior, forward.settings, forward.video
    with pytest.raises(StoreError, match="exists"):
        open_store(tmp_path / "s", *parts)
    assert sum(content(tmp_path / "s")[2]) == 2
    with open_store(tmp_path / "s", *parts, overwrite=True) as store:
        assert not store.done.any()
        assert store.load_memories() == {}


def test_a_prior_that_cannot_be_kept_leaves_no_locked_store(
    forward: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise PriorError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(PriorMemory, "save", full)
        with pytest.raises(PriorError, match="full"):
            forward.store(tmp_path / "s")
    with LabelStore.open(tmp_path / "s") as store:
        assert not store.done.any()


def test_a_damaged_memory_is_a_store_error(forward: Setup, tmp_path: Path) -> None:
    forward.track(tmp_path / "s", range(FRAMES), stop_after=7)
    with forward.store(tmp_path / "s") as store:
        index = max(store.load_memories())
        store.save_memory(index, {"nonsense": np.zeros(3, np.float32)}, {"run": "0"})
    with pytest.raises(StoreError, match=f"memory of frame {index} is damaged"):
        forward.track(tmp_path / "s")
    assert sum(content(tmp_path / "s")[2]) == 7
