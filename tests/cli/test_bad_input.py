"""Bad input is one sentence on standard error and changes nothing."""

import pytest

from napari_samexp.io.labels import LabelStore
from tests.tiny_files import RECORD, TRACK, content

BAD_INPUT = [
    ("paint", "No such command 'paint'"),
    ("track", "Missing argument"),
    ("track clip.mp4 --prior prior.safetensors", "Missing option '--out'"),
    (f"{TRACK} --nonsense", "--nonsense"),
    (f"{TRACK} --recent many", "--recent"),
    (f"{TRACK} --recent 7", "--recent"),
    (f"{TRACK} --prior-time never", "--prior-time"),
    ("info nothing.pt", "nothing.pt"),
    ("info empty", "empty"),
    ("info hostile.pt", "hostile"),
    ("info cut.safetensors", "cut.safetensors"),
    (f"{RECORD} --point 12,abc", "--point is '12,abc'; give two numbers"),
    (f"{RECORD} --point 12", "two numbers"),
    (f"{RECORD} --point 1,2,3", "two numbers"),
    (f"{RECORD} --point nan,3", "two numbers"),
    (f"{RECORD} --point 1,2 --background ,", "--background"),
    (f"{RECORD} --box 1,2,3", "four numbers"),
    (f"{RECORD} --box 9,2,3,20", "left < right"),
    (f"{RECORD} --box 100,100,120,120", "outside the image"),
    (f"{RECORD} --point 64,10", "outside the image, which is 64 wide and 48 high"),
    (f"{RECORD} --point -3,10", "outside the image"),
    (RECORD, "give at least one --point"),
    (f"{RECORD} --background 1,2", "give at least one --point"),
    (f"{RECORD} --point 9,9 --label 0", "--label"),
    (f"{RECORD} --point 9,9 --label 70000", "--label"),
    (f"{RECORD} --point 9,9 --mask-index 4", "--mask-index"),
    (f"{RECORD} --point 9,9 --side 40", "multiple of 32"),
    (f"{RECORD} --point 9,9 --device abacus", "abacus"),
    (f"{RECORD} --point 9,9 --dtype int3", "int3"),
    (f"{RECORD} --point 9,9 --append --overwrite", "exclude each other"),
    ("record none.png --model tiny.safetensors --point 9,9 --out new", "none.png"),
    ("record empty --model tiny.safetensors --point 9,9 --out new", "empty"),
    ("record cut.png --model tiny.safetensors --point 9,9 --out new", "cut.png"),
    ("record clip.mp4@99 --model tiny.safetensors --point 9,9 --out new", "no frame 99"),
    ("record clip.mp4 --model tiny.safetensors --point 9,9 --out new", "VIDEO@FRAME"),
    ("record cat.png --model nonsense --point 9,9 --out new", "no model of that name"),
    ("record cat.png --model sam_vit_b --point 9,9 --out new", "SAM 1 model, which has no memory"),
    ("record cat.png --model sam1.safetensors --point 9,9 --out new", "SAM 1 model, which has no memory"),
    ("record cat.png --model cat.png --point 9,9 --out new", "cat.png"),
    ("record cat.png --model tiny.safetensors --point 9,9 --out prior.safetensors", "exists"),
    ("record cat.png --model tiny.safetensors --point 9,9 --overwrite --out cat.png", "is no prior"),
    ("record cat.png --model tiny.safetensors --point 9,9 --append --out cat.png", "is no prior"),
    ("record cat.png --model other.safetensors --point 9,9 --append --out prior.safetensors", "other"),
    ("record cat.png --model tiny.safetensors --point 9,9 --out none/new", "does not exist"),
    ("record cat.png --model tiny.safetensors --point 9,9 --out folder", "is a folder"),
    ("track none.mp4 --prior prior.safetensors --model tiny.safetensors --out labels.zarr", "none.mp4"),
    ("track empty --prior prior.safetensors --model tiny.safetensors --out labels.zarr", "empty"),
    ("track hostile.pt --prior prior.safetensors --model tiny.safetensors --out labels.zarr", "hostile.pt"),
    ("track clip.mp4 --prior none --model tiny.safetensors --out labels.zarr", "no prior file"),
    ("track clip.mp4 --prior empty --model tiny.safetensors --out labels.zarr", "empty"),
    ("track clip.mp4 --prior cut.safetensors --model tiny.safetensors --out labels.zarr", "cut.safetensors"),
    ("track clip.mp4 --prior tiny.safetensors --model tiny.safetensors --out labels.zarr", "no prior"),
    ("track clip.mp4 --prior prior.safetensors --out labels.zarr", "give their path with --model"),
    ("track clip.mp4 --prior prior.safetensors --model other.safetensors --out labels.zarr", "recorded with"),
    ("track clip.mp4 --prior prior.safetensors --model sam2_hiera_tiny --out labels.zarr", "--image"),
    ("track clip.mp4 --prior prior.safetensors --model sam_vit_h --out labels.zarr", "has no memory"),
    ("track clip.mp4 --prior prior.safetensors --model sam1.safetensors --out labels.zarr", "has no memory"),
    (f"{TRACK} --frames 3", "--frames is '3'; give A:B"),
    (f"{TRACK} --frames a:b", "give A:B"),
    (f"{TRACK} --frames 7:7", "picks no frame"),
    (f"{TRACK} --frames 10:", "picks no frame; the video has 10, 0 to 9"),
    (f"{TRACK} --side 50", "multiple of 32"),
    (f"{TRACK} --resume --overwrite", "exclude each other"),
    (f"{TRACK} --image none.png", "none.png"),
    (f"{TRACK} --overlay o.gif", "ends in .mp4"),
    (f"{TRACK} --overlay clip.mp4", "would overwrite the video"),
    (f"{TRACK} --overlay ./folder/../clip.mp4", "would overwrite the video"),
    (f"{TRACK} --overlay link.mp4", "would overwrite the video"),
    (f"{TRACK} --overlay labels.zarr/o.mp4", "lies in labels.zarr"),
    (f"{TRACK} --scores labels.zarr", "would overwrite the labels"),
    (f"{TRACK} --scores prior.safetensors", "would overwrite the prior"),
    (f"{TRACK} --scores cat.png --image cat.png", "would overwrite the image"),
    (f"{TRACK} --scores tiny.safetensors", "would overwrite the weights"),
    (f"{TRACK} --scores clip2.mp4 --image clip2.mp4@1", "would overwrite the image clip2.mp4@1"),
    (f"{TRACK} --scores a.mp4 --overlay a.mp4", "would overwrite what --scores writes"),
    (f"{TRACK} --scores none/s.csv", "does not exist"),
    (f"{TRACK} --scores folder", "is a folder"),
    ("track clip.mp4 --prior prior.safetensors --model tiny.safetensors --out clip.mp4 --overwrite", "no label store"),
    ("track clip.mp4 --prior prior.safetensors --model tiny.safetensors --out folder --overwrite", "no label store"),
    ("track clip.mp4 --prior prior.safetensors --model tiny.safetensors --out folder --resume", "not a label store"),
]  # fmt: skip


@pytest.fixture
def bad_files(place):
    (place / "empty").touch()
    (place / "hostile.pt").write_bytes(
        b"\x80\x02cos\nsystem\nq\x00X\x04\x00\x00\x00evilq\x01\x85q\x02Rq\x03."
    )
    (place / "cut.png").write_bytes((place / "cat.png").read_bytes()[:2000])
    (place / "cut.safetensors").write_bytes((place / "prior.safetensors").read_bytes()[:900])
    (place / "folder").mkdir()
    (place / "folder" / "mine.txt").write_text("mine")
    (place / "link.mp4").symlink_to(place / "clip.mp4")
    return place


@pytest.mark.parametrize(("line", "phrase"), BAD_INPUT, ids=[line[-60:] for line, _ in BAD_INPUT])
def test_bad_input_is_one_sentence_and_changes_nothing(shell, bad_files, line, phrase):
    before = content(bad_files)
    status, out, err = shell(line)
    assert (status, out) == (2, "")
    assert err.startswith("napari-samexp: ") and err.count("\n") == 1
    assert phrase in err
    assert content(bad_files) == before
    assert not (bad_files / "labels.zarr").exists()


def test_a_store_of_another_run_is_refused_and_left_as_it_is(shell, place):
    assert shell(f"{TRACK} --frames 0:3")[0] == 0
    before = content(place / "labels.zarr")
    for line, phrase in (
        (TRACK, "exists; choose another --out"),
        (f"{TRACK} --resume --recent 1", "other settings"),
        (TRACK.replace("clip.mp4", "clip2.mp4") + " --resume", "another video"),
    ):
        status, out, err = shell(line)
        assert (status, out) == (2, "")
        assert phrase in err
    assert content(place / "labels.zarr") == before


def test_a_store_that_is_being_written_is_refused(shell, place):
    assert shell(f"{TRACK} --frames 0:1")[0] == 0
    with LabelStore.open(place / "labels.zarr"):
        status, _, err = shell(f"{TRACK} --resume")
    assert status == 2
    assert "Another process" in err
