"""Every change of the prior is a file; the newest is the prior, and undoing leads back."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_samexp.engine.journal import MOST_REVISIONS, PriorJournal, keys_of, state_of
from napari_samexp.errors import PriorError
from napari_samexp.sam.features import Memory
from napari_samexp.session.folders import left_sessions
from napari_samexp.tracking.prior import PriorMemory
from napari_samexp.tracking.recording import Recording
from napari_samexp.types import Prompt
from tests import hostile_archive


def recorded(prior: PriorMemory, name: str) -> PriorMemory:
    number = float(len(name) + ord(name[0]))
    recording = Recording(
        1, Prompt(), "image", f"hash {name}", (4, 4), "tiny", "weights", 64, True, name=name
    )
    return prior.with_recording(recording, Memory(torch.full((2, 2, 2), number), torch.full((4,), number)))


def names(journal: PriorJournal) -> str:
    return "".join(recording.name for recording in journal.prior.recordings)


def test_changes_are_found_again_and_taken_back_also_after_a_restart(tmp_path: Path) -> None:
    journal = PriorJournal(tmp_path)
    assert (names(journal), journal.undoable, journal.changes) == ("", False, frozenset())
    for number, name in enumerate("abc", start=10):
        journal.commit(recorded(journal.prior, name), number)
    journal.undo(13)
    assert names(journal) == "ab"
    journal = PriorJournal(tmp_path)
    assert (names(journal), journal.undoable) == ("ab", True)
    assert journal.changes == {10, 11, 12, 13}
    journal.commit(journal.prior.without(0), 14)
    journal.commit(PriorMemory(), 15)
    for number, expected in enumerate(("b", "ab", "a", ""), start=16):
        journal = PriorJournal(tmp_path)
        journal.undo(number)
        assert names(journal) == expected
    assert not journal.undoable
    with pytest.raises(PriorError, match="no change"):
        journal.undo(99)


def test_old_revisions_go_and_with_them_the_way_back(tmp_path: Path) -> None:
    journal = PriorJournal(tmp_path)
    journal.commit(recorded(PriorMemory(), "a"), 0)
    for number in range(1, MOST_REVISIONS + 5):
        journal.commit(journal.prior.with_change(0, name=f"n{number}"), number)
    assert len(list(tmp_path.glob("*.safetensors"))) == MOST_REVISIONS
    undone = 0
    while journal.undoable:
        journal.undo(100 + undone)
        undone += 1
    assert 1 < undone < MOST_REVISIONS


def test_a_change_that_cannot_be_kept_is_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    journal = PriorJournal(folder)
    journal.commit(recorded(PriorMemory(), "a"), 1)
    folder.rename(tmp_path / "moved")
    for prior in (recorded(journal.prior, "b"), PriorMemory()):
        with pytest.raises(PriorError):
            journal.commit(prior, 2)
    assert names(journal) == "a"


def test_a_damaged_revision_leads_to_the_one_before(tmp_path: Path) -> None:
    journal = PriorJournal(tmp_path)
    journal.commit(recorded(journal.prior, "a"), 1)
    journal.commit(recorded(journal.prior, "b"), 2)
    max(tmp_path.glob("*.safetensors")).write_bytes(b"\x00" * 50)
    journal = PriorJournal(tmp_path)
    assert names(journal) == "a" and "older state" in str(journal.notice)
    journal.commit(recorded(journal.prior, "c"), 3)
    assert names(PriorJournal(tmp_path)) == "ac"


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    journal = PriorJournal(tmp_path / "file" / "journal")
    assert "cannot be used" in str(journal.notice) and journal.changes == frozenset()


def test_images_are_kept_by_what_they_show(tmp_path: Path) -> None:
    journal = PriorJournal(tmp_path)
    rgb = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    journal.keep_image("../../hostile", rgb)
    journal.keep_image("../../hostile", rgb)
    np.testing.assert_array_equal(journal.images["../../hostile"], rgb)
    assert len(journal.images) == 1 and journal.images.get("other") is None
    assert [path.parent for path in tmp_path.rglob("*.png")] == [tmp_path / "pictures"]


def test_recordings_have_names_that_stay(tmp_path: Path) -> None:
    journal = PriorJournal(tmp_path)
    prior = recorded(recorded(recorded(PriorMemory(), "a"), "b"), "a")
    keys = keys_of(prior)
    assert len(set(keys)) == 3
    assert keys_of(prior.with_change(1, label=5, name="x", enabled=False)) == keys
    assert keys_of(prior.without(0))[0] == keys[1]
    journal.commit(prior, 1)
    assert [info.key for info in state_of(PriorJournal(tmp_path), "weights").recordings] == keys
    assert [info.usable for info in state_of(journal, "others").recordings] == [False] * 3


def test_a_revision_of_any_number_is_followed_by_one_that_is_found(tmp_path: Path) -> None:
    """A file's name can come from anywhere, and none may hide what is recorded after it."""
    folder = tmp_path / "20260101-000000-abcdef" / "prior"
    PriorJournal(folder).commit(recorded(PriorMemory(), "a"), 1)
    next(folder.glob("*.safetensors")).rename(folder / "99999999-9999-1.safetensors")
    journal = PriorJournal(folder)
    journal.commit(recorded(journal.prior, "b"), 2)
    assert names(PriorJournal(folder)) == "ab"
    assert left_sessions(tmp_path)[0].prior.name == "100000000-10000-2.safetensors"


@pytest.mark.parametrize("name", ["prior", "prior/pictures"])
def test_a_journal_whose_folder_is_a_link_writes_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    thesis = hostile_archive.write_thesis(tmp_path)
    (tmp_path / name).symlink_to(thesis)
    journal = PriorJournal(tmp_path / "prior")
    assert "is a link and no ordinary folder" in str(journal.notice)
    journal.keep_image("key", np.zeros((3, 3, 3), np.uint8))
    if name == "prior":
        for prior in (recorded(journal.prior, "a"), PriorMemory()):
            with pytest.raises(PriorError, match="is a link"):
                journal.commit(prior, 1)
    for number in range(MOST_REVISIONS + 2):  # enough for old ones to be removed
        with suppress(PriorError):
            journal.commit(recorded(PriorMemory(), "a"), number)
    hostile_archive.require_untouched(tmp_path)


def test_links_among_revisions_and_images_are_passed_over(tmp_path: Path) -> None:
    thesis = hostile_archive.write_thesis(tmp_path)
    journal = PriorJournal(tmp_path / "prior")
    journal.commit(recorded(PriorMemory(), "a"), 1)
    (tmp_path / "prior" / "00000009-0001-1.safetensors").symlink_to(thesis / "000000003.safetensors")
    (tmp_path / "prior" / "pictures").mkdir()
    journal.images.path("key").symlink_to(thesis / "images" / "a.png")
    again = PriorJournal(tmp_path / "prior")
    assert (names(again), again.notice) == ("a", None)
    with pytest.raises(KeyError):
        again.images["key"]
    again.keep_image("key", np.zeros((3, 3, 3), np.uint8))
    hostile_archive.require_untouched(tmp_path)
