"""Links, pipes and second names in the place of files of ours: told in one sentence, and nothing beyond them changes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_samexp.errors import StoreError
from napari_samexp.io import guarded
from napari_samexp.io.atomic import remove_partials
from napari_samexp.io.guarded import (
    NotOrdinaryError,
    kind_at,
    kind_of,
    lock_at,
    make_folder,
    open_file,
    open_folder,
    read_whole,
)
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.io.labels import LabelStore
from napari_samexp.measure.masks import open_masks
from napari_samexp.types import FrameResult, ObjectScore, RunIdentity
from tests.hostile_archive import require_untouched, send, write_thesis

SHAPE = (5, 4, 6)
IDENTITY = RunIdentity("video", "prior", "model", "{}")


def result_of(index: int, label: int = 1) -> FrameResult:
    return FrameResult(index, np.full(SHAPE[1:], label, np.uint16), {1: ObjectScore(1.0, 0.5)})


@pytest.fixture(params=["handles", "no handles"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test as here, and with what Windows has."""
    if request.param == "no handles":
        monkeypatch.setattr(guarded, "_HANDLES", False)
        monkeypatch.setattr(guarded, "_NO_FOLLOW", 0)


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    """A folder with a store and its side folder, as somebody packs them, and a place with a thesis to unpack in."""
    store = LabelStore.create(tmp_path / "sent" / "run.zarr", shape=SHAPE, labels=[1], identity=IDENTITY)
    with store:
        for index in range(3):
            store.save_memory(index, {"a": np.ones(3, np.float32)}, {})
            store.write(result_of(index))
    labels = EditableLabels(store.path)
    labels[4, 1, 1] = 1
    for name in ("new", "trash", "old"):
        (tmp_path / "sent" / ".run.zarr.samexp" / name).mkdir(parents=True)
    write_thesis(tmp_path / "here")
    return tmp_path / "sent"


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def use_all(path: Path) -> None:
    """Do with a store all that writes, reads, removes or moves."""
    with LabelStore.open(path, identity=IDENTITY) as store:
        store.load_memories()
        store.write(result_of(3))
        store.save_memory(3, {"a": np.zeros(3, np.float32)}, {})
        store.prune_memories([1])
        for index in range(3):
            store.frame(index)
        store.forget([0])
        store.write(result_of(0))
    labels = EditableLabels(path)
    labels[2, 0, 0] = 0


def replace(path: Path) -> None:
    LabelStore.create(path, shape=SHAPE, labels=[1], identity=IDENTITY, overwrite=True).close()


LINKS = {
    ".run.zarr.samexp": "thesis",
    ".run.zarr.samexp/lock": "thesis/notes",
    ".run.zarr.samexp/new": "thesis/new",
    ".run.zarr.samexp/trash": "thesis/trash",
    ".run.zarr.samexp/old": "thesis/old",
    "run.zarr/zarr.json": "thesis/notes",
    "run.zarr/scores.jsonl": "thesis/notes",
    "run.zarr/edited.json": "thesis/notes",
    "run.zarr/memory": "thesis",
    "run.zarr/memory/000000001.safetensors": "thesis/000000003.safetensors",
    "run.zarr/c.1.0.0": "thesis/notes",
}


def without_side(links: dict[str, str]) -> dict[str, str]:
    return {name: target for name, target in links.items() if "samexp" not in name}


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("use", [use_all, replace])
def test_a_link_in_a_store_that_was_unpacked_harms_nothing(
    sent: Path, tmp_path: Path, name: str, use: Callable[[Path], None]
) -> None:
    here = tmp_path / "here"
    send(sent, here, {name: LINKS[name]})
    if use is replace and name.startswith("run.zarr/") and name != "run.zarr/zarr.json":
        use(here / "run.zarr")  # the links go with the store
        assert names_in(here / "run.zarr") == ["scores.jsonl", "zarr.json"]
    else:
        with pytest.raises(StoreError) as caught:
            use(here / "run.zarr")
        said = str(caught.value)
        assert f"{here / name} is a link and no ordinary" in said and said.endswith(".") and "\n" not in said
        assert (here / name).is_symlink()
    require_untouched(here)


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("name", ["run.zarr/scores.jsonl", ".run.zarr.samexp/lock"])
def test_a_hard_link_is_not_written(sent: Path, tmp_path: Path, name: str) -> None:
    """An archive can make one to any file beside which it is unpacked; reading harms nobody."""
    here = tmp_path / "here"
    journal = (sent / "run.zarr" / "scores.jsonl").read_bytes()
    (here / "journal").write_bytes(journal)
    send(sent, here, {}, {name: "journal" if "scores" in name else "thesis/notes"})
    assert (here / name).stat().st_nlink == 2
    assert LabelStore.open(here / "run.zarr", mode="r").done.sum() == 3
    with pytest.raises(StoreError, match="hard link"):
        use_all(here / "run.zarr")
    require_untouched(here)
    assert (here / "journal").read_bytes() == journal


@pytest.mark.usefixtures("system")
def test_what_is_replaced_may_have_a_second_name(sent: Path, tmp_path: Path) -> None:
    """Chunks, memories and the list of painted frames are written anew, so that the other name keeps the old."""
    here = tmp_path / "here"
    names = ("run.zarr/c.0.0.0", "run.zarr/memory/000000001.safetensors", "run.zarr/edited.json")
    send(sent, here, {})
    before = [(sent / name).read_bytes() for name in names]
    for number, name in enumerate(names):
        os.link(here / name, here / f"kept{number}")
    with LabelStore.open(here / "run.zarr") as store:
        store.write(FrameResult(0, np.zeros(SHAPE[1:], np.uint16), {1: ObjectScore(1.0, 0.5)}))
        store.save_memory(1, {}, {})
    EditableLabels(here / "run.zarr")[2, 0, 0] = 0
    assert [(here / f"kept{number}").read_bytes() for number in range(3)] == before


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("leftover", ["new", "trash", "old"])
def test_the_side_folder_is_emptied_of_what_a_store_holds_only(
    sent: Path, tmp_path: Path, leftover: str
) -> None:
    """Such a folder has no mark of its own in version 0.1: its name and what lies in it are the mark."""
    here = tmp_path / "here"
    send(sent, here, {})
    folder = here / ".run.zarr.samexp" / leftover
    (folder / "memory").mkdir()
    (folder / "memory" / "chapter.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"memory/chapter\.txt, which no run .* put there"):
        LabelStore.open(here / "run.zarr")
    assert (folder / "memory" / "chapter.txt").read_text() == "mine"
    (folder / "memory" / "chapter.txt").rename(folder / "memory" / "000000001.safetensors")
    use_all(here / "run.zarr")
    assert sorted(entry.name for entry in here.iterdir()) == ["run.zarr", "thesis"]


@pytest.mark.usefixtures("system")
def test_a_folder_in_the_place_of_a_frame_is_not_removed(sent: Path, tmp_path: Path) -> None:
    """zarr removes a folder whose name is that of a chunk which has become empty."""
    chunk = sent / "run.zarr" / "c.3.0.0"
    write_thesis(chunk)
    empty = FrameResult(3, np.zeros(SHAPE[1:], np.uint16), {1: ObjectScore(1.0, 0.5)})
    with LabelStore.open(sent / "run.zarr") as store:
        with pytest.raises(StoreError, match=r"c\.3\.0\.0 is a folder"):
            store.write(empty)
        assert not store.done[3]
    with pytest.raises(StoreError, match=r"also holds c\.3\.0\.0/"):
        replace(sent / "run.zarr")
    require_untouched(chunk)


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize(
    "text",
    [b"one line, years of work\n", b"one line, years of work", b"{\n", b"\0" * 40, b"\0" * 40 + b"\n", b"{}"],
)
def test_a_journal_whose_first_line_is_none_is_damaged_and_stays(sent: Path, text: bytes) -> None:
    journal = sent / "run.zarr" / "scores.jsonl"
    journal.write_bytes(text)
    for mode in ("r", "a"):
        with pytest.raises(StoreError, match="damaged in line 1 "):
            LabelStore.open(sent / "run.zarr", mode=mode)  # type: ignore[arg-type]
    assert journal.read_bytes() == text


@pytest.mark.parametrize("text", [b"", b"{", b'{"frame":0,"sco', b'{"forget":[', b'{"fo'])
def test_a_first_line_that_a_kill_cut_short_is_written_over(sent: Path, text: bytes) -> None:
    (sent / "run.zarr" / "scores.jsonl").write_bytes(text)
    with LabelStore.open(sent / "run.zarr") as store:
        assert not store.done.any()
        store.write(result_of(1))
    assert LabelStore.open(sent / "run.zarr", mode="r").missing() == [0, 2, 3, 4]


def test_arrays_of_others_may_be_of_links(sent: Path, tmp_path: Path) -> None:
    """As in an archive of data that keeps its files elsewhere under their hashes; a label store may not."""
    import zarr

    labels = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    zarr.create_array(tmp_path / "a.zarr", data=labels, chunk_key_encoding={"name": "v2", "separator": "."})
    for file in (tmp_path / "a.zarr").iterdir():
        kept = file.rename(tmp_path / f"object {file.name}")
        file.symlink_to(kept)
    with open_masks(tmp_path / "a.zarr") as masks:
        np.testing.assert_array_equal(masks.frame(1), labels[1])
    header = (sent / "run.zarr" / "zarr.json").rename(tmp_path / "zarr.json")
    (sent / "run.zarr" / "zarr.json").symlink_to(header)
    with pytest.raises(StoreError, match="is a link"), open_masks(sent / "run.zarr"):
        pass


# ---- the decision


def status_of(mode: int, tag: int = 0) -> Any:
    return SimpleNamespace(st_mode=mode, st_reparse_tag=tag, st_nlink=1)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (status_of(stat.S_IFREG), "file"),
        (status_of(stat.S_IFDIR), "folder"),
        (status_of(stat.S_IFLNK), "link"),
        (status_of(stat.S_IFLNK, 0xA000000C), "link"),  # a link of Windows
        (status_of(stat.S_IFDIR, 0xA0000003), "link"),  # a junction, which looks like a folder
        (status_of(stat.S_IFREG, 0x9000001A), "file"),  # a file that OneDrive holds
        (status_of(stat.S_IFDIR, 0x9000001A), "folder"),
        (status_of(stat.S_IFIFO), "other"),
        (status_of(stat.S_IFCHR), "other"),
        (status_of(stat.S_IFSOCK), "other"),
    ],
)
def test_what_a_status_is_of(status: Any, kind: str) -> None:
    assert kind_of(status) == kind


def test_a_junction_is_followed_nowhere(sent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows says of a junction that it is a folder, and in its status which kind of one."""
    memory, really = sent / "run.zarr" / "memory", os.lstat

    def lstat(path: Any, **options: Any) -> Any:
        return status_of(stat.S_IFDIR, 0xA0000003) if Path(path) == memory else really(path, **options)

    def status(path: Any, **options: Any) -> Any:
        return plain(path, **options) if options.get("follow_symlinks", True) else lstat(path)

    plain = os.stat
    monkeypatch.setattr(guarded, "_HANDLES", False)
    monkeypatch.setattr(os, "lstat", lstat)
    monkeypatch.setattr(os, "stat", status)
    before = names_in(memory)
    with pytest.raises(StoreError, match=r"memory is a link and no ordinary folder"):
        LabelStore.open(sent / "run.zarr")
    assert names_in(memory) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among its files")
@pytest.mark.parametrize("mode", ["rb", "r+b", "a+b"])
def test_a_pipe_is_not_opened(tmp_path: Path, mode: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotOrdinaryError, match="a pipe or a device"):
        open_file(tmp_path / "pipe", mode)
    with pytest.raises(NotOrdinaryError):
        lock_at(tmp_path / "pipe")


@pytest.mark.usefixtures("system")
def test_a_link_that_leads_nowhere_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for use in (make_folder, lock_at, lambda path: open_file(path, "a+b"), lambda path: read_whole(path, 9)):
        with pytest.raises(NotOrdinaryError, match="is a link"):
            use(tmp_path / "link")
    assert kind_at(tmp_path / "link") == "link" and kind_at(tmp_path / "new") is None
    assert names_in(tmp_path) == ["link"]


@pytest.mark.skipif(not guarded._HANDLES, reason="Windows has no handles of folders")
def test_a_folder_that_is_held_stays_the_same_under_another_name(tmp_path: Path) -> None:
    """Whoever puts a link in its place meanwhile, gains nothing."""
    thesis = write_thesis(tmp_path)
    (tmp_path / "ours" / "new").mkdir(parents=True)
    with open_folder(tmp_path / "ours") as folder:
        (tmp_path / "ours").rename(tmp_path / "moved")
        (tmp_path / "ours").symlink_to(thesis)
        folder.remove_tree("new")
        folder.unlink("notes")
        assert folder.names() == [] and folder.kind("notes") is None
    require_untouched(tmp_path)


@pytest.mark.usefixtures("system")
def test_unfinished_files_are_not_swept_through_a_link(tmp_path: Path) -> None:
    thesis = write_thesis(tmp_path)
    (tmp_path / "link").symlink_to(thesis)
    with pytest.raises(NotOrdinaryError):
        remove_partials(tmp_path / "link")
    remove_partials(tmp_path / "nowhere")
    require_untouched(tmp_path)
