"""Labels that are painted while a run writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_samexp.engine.messages.base import Failed
from napari_samexp.engine.messages.tracking import FrameDone, Keep, Kept, Track, TrackEnded, TrackStarted
from napari_samexp.errors import StoreError
from napari_samexp.io.label_edits import edited_frames
from tests.session.harness import GOOD, LOST, SessionHarness, result, store_at


def test_painted_frames_are_left_alone(session: SessionHarness, tmp_path: Path) -> None:
    tracking, results = session.session.tracking, session.session.results
    path = tmp_path / "s.zarr"
    number = session.track(path)
    with store_at(path) as store:
        session.reply(TrackStarted(number, str(path), (6, 8, 10), {1: "a"}, 0, 6))
        assert results.labels is not None
        results.labels[2, 0, 0] = 1
        keep, request = session.engine.last(Keep)
        assert request == Keep(frozenset({2}))
        store.write(result(2))
        session.reply(FrameDone(number, 2, {1: GOOD}, 0.1))
        assert results.labels[2, 0, 0] == 1 and results.labels[2, 0, 2] == 0
        session.reply(Kept(keep, frozenset({2})), TrackEnded(number, "finished"))
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
    assert session.notices == ["No.", "No."] and session.jobs[-2:] == ["failed", "starting"]


def test_nothing_is_lost_in_painted_frames(session: SessionHarness, tmp_path: Path) -> None:
    results, notices = session.session.results, []
    results.edited_changed.connect(lambda: notices.append(results.lost_frames()))
    assert results.edited == frozenset() and results.lost_frames() == []
    path = tmp_path / "s.zarr"
    number = session.track(path)
    store_at(path).close()
    session.reply(TrackStarted(number, str(path), (6, 8, 10), {1: "a", 2: "b"}, 0, 6))
    for index in range(6):
        session.reply(FrameDone(number, index, {1: LOST if index in (1, 2, 4) else GOOD, 2: GOOD}, 0.1))
    session.reply(TrackEnded(number, "finished"))
    assert results.lost_frames() == [1, 2, 4] == results.lost_frames(1) and results.lost_frames(2) == []
    assert results.labels is not None
    results.labels[2, 0, 0] = 1
    results.labels[2, 0, 1] = 1  # the second stroke on a frame decides nothing more
    assert notices == [[1, 4]]
    assert (results.next_lost(1), results.previous_lost(4), results.scores[2][1].lost) == (4, 1, True)
    results.release_edited([2])
    assert notices == [[1, 4], [1, 2, 4]]
