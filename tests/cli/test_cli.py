"""The command line: what it writes, what it says, and that bad input changes nothing."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_samexp import __version__
from napari_samexp.cli import main, run
from napari_samexp.cli import progress as progress_module
from napari_samexp.cli.options import TrackingOptions
from napari_samexp.cli.track import _expectation
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video, read_frame
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.render.overlay import write_png
from napari_samexp.sam.models import Sam1, Sam2
from napari_samexp.sam.variants import VARIANTS, Sam1Variant, Sam2Variant
from napari_samexp.sam.weights.catalogue import OFFICIAL, OfficialFile
from napari_samexp.sam.weights.hashes import sha256_of
from napari_samexp.sam.weights.loading import load_model, metadata_for
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings
from napari_samexp.tracking.forecast import Forecast, Work
from napari_samexp.tracking.recording import image_hash
from tests import hostile_archive

FRAMES, HEIGHT, WIDTH = 10, 48, 64
TINY = Sam2Variant(
    name="tiny-random", version="2.1", embed_dim=8, num_heads=1, stages=(1, 2, 2, 1), global_blocks=(3,),
    window_spec=(8, 4, 4, 2), image_size=64, d_model=32, mem_dim=8, mem_ff=32, mem_layers=1, mlp_dim=32,
    iou_hidden=16,
)  # fmt: skip
TINY_SAM1 = Sam1Variant("tiny-sam1", 1, 16, 2, (0,), 64, 4, 32, 32, 16)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
COMMAND = [sys.executable, "-m", "napari_samexp"]


# ---- what the commands work on


def _write_tiny(path, seed, presence=5.0):
    torch.manual_seed(seed)
    model = Sam2(TINY)
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(presence)
    save_file(model.state_dict(), path, metadata_for(TINY))


def _frames(count):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(3).integers(0, 90, (count, HEIGHT, WIDTH, 3), np.uint8)
    for i, frame in enumerate(noise):
        frame[(y - 24) ** 2 + (x - 15 - 3 * (i % 12)) ** 2 < 81] = (230, 140, 40)
    return noise


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """A folder with weights, a clip, an image and a prior, never to be changed."""
    folder = tmp_path_factory.mktemp("originals")
    _write_tiny(folder / "tiny.safetensors", 3)
    _write_tiny(folder / "other.safetensors", 4)
    _write_tiny(folder / "blind.safetensors", 3, presence=-5.0)
    save_file(Sam1(TINY_SAM1).state_dict(), folder / "sam1.safetensors", metadata_for(TINY_SAM1))
    frames = _frames(FRAMES)
    write_mp4(folder / "clip.mp4", frames, 10, quality=12)
    write_mp4(folder / "clip2.mp4", frames[::-1], 10, quality=12)
    write_png(folder / "cat.png", frames[0])
    recorded = ["record", folder / "cat.png", "--model", folder / "tiny.safetensors", "--point", "15,24"]
    assert run([*map(str, recorded), "--out", str(folder / "prior.safetensors"), "--name", "cat"]) == 0
    return folder


@pytest.fixture
def place(tmp_path, originals, monkeypatch):
    """A folder of one's own with the originals, as the working folder."""
    for file in originals.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAPARI_SAMEXP_CACHE", str(tmp_path / "cache"))
    return tmp_path


def _content(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def shell(place, capsys):
    """Run a command line and return its status, standard output and standard error."""

    def call(line):
        status = run(line.split())
        out, err = capsys.readouterr()
        return status, out, err

    capsys.readouterr()
    return call


RECORD = "record cat.png --model tiny.safetensors --out new.safetensors"
TRACK = "track clip.mp4 --prior prior.safetensors --model tiny.safetensors --out labels.zarr"
WITH = "track clip.mp4 --prior prior.safetensors --model"


def _labels(path):
    with LabelStore.open(path, mode="r") as store:
        return np.stack([store.frame(t) for t in range(store.shape[0])]), store.done


# ---- bad input

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
    (f"{WITH} other.safetensors --out labels.zarr", "recorded with"),
    (f"{WITH} sam2_hiera_tiny --out labels.zarr", "--image"),
    (f"{WITH} sam_vit_h --out labels.zarr", "has no memory"),
    (f"{WITH} sam1.safetensors --out labels.zarr", "has no memory"),
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
    (f"{WITH} tiny.safetensors --out clip.mp4 --overwrite", "no label store"),
    (f"{WITH} tiny.safetensors --out folder --overwrite", "no label store"),
    (f"{WITH} tiny.safetensors --out folder --resume", "not a label store"),
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
    before = _content(bad_files)
    status, out, err = shell(line)
    assert (status, out) == (2, "")
    assert err.startswith("napari-samexp: ") and err.count("\n") == 1
    assert phrase in err
    assert _content(bad_files) == before
    assert not (bad_files / "labels.zarr").exists()


def test_a_store_of_another_run_is_refused_and_left_as_it_is(shell, place):
    assert shell(f"{TRACK} --frames 0:3")[0] == 0
    before = _content(place / "labels.zarr")
    for line, phrase in (
        (TRACK, "exists; choose another --out"),
        (f"{TRACK} --resume --recent 1", "other settings"),
        (TRACK.replace("clip.mp4", "clip2.mp4") + " --resume", "another video"),
    ):
        status, out, err = shell(line)
        assert (status, out) == (2, "")
        assert phrase in err
    assert _content(place / "labels.zarr") == before


def test_a_store_that_is_being_written_is_refused(shell, place):
    assert shell(f"{TRACK} --frames 0:1")[0] == 0
    with LabelStore.open(place / "labels.zarr"):
        status, _, err = shell(f"{TRACK} --resume")
    assert status == 2
    assert "Another process" in err


# ---- help


def test_help_names_every_command(shell):
    for line in ("", "--help", "-h"):
        status, out, err = shell(line)
        assert (status, err) == (0, "")
        assert all(
            re.search(rf"^  {name} ", out, re.MULTILINE) for name in ("info", "record", "track", "demo")
        )


def test_the_settings_words_are_in_the_help(shell):
    _, out, _ = shell("track --help")
    words = " ".join(out.split())
    shown = {"recent", "pointers", "store_memories", "keep_lost", "side", "square", "prior_time", "direction"}
    for field in fields(TrackSettings):
        assert (field.metadata["help"] in words) == (field.name in shown)


def test_the_defaults_are_the_settings_own():
    assert TrackingOptions().settings == TrackSettings()


def test_the_version(shell):
    assert shell("--version") == (0, f"napari-samexp {__version__}\n", "")


def test_help_needs_neither_torch_nor_a_decoder():
    script = (
        "import sys; from napari_samexp.cli import run; status = run(['track', '--help']);"
        "sys.exit(status or len({'torch', 'av', 'zarr', 'rich', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "--prior" in done.stdout


# ---- info


def test_threads_of_a_command_sleep_while_they_wait_unless_told_otherwise(monkeypatch):
    script = (
        "import os, sys; from napari_samexp.cli import main; sys.argv[1:] = ['--version']\n"
        "try: main()\nexcept SystemExit: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )

    def said():
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.split()

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert said()[-2:] == ["PASSIVE", "False"]  # torch reads it when it is imported
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert said()[-2:] == ["ACTIVE", "False"]


def test_info_says_what_a_file_is(shell, place):
    status, out, err = shell("info tiny.safetensors --json")
    facts = json.loads(out)
    assert (status, err) == (0, "")
    assert facts["variant"] == "tiny-random" and facts["family"] == "SAM 2.1" and facts["image_size"] == 64
    assert facts["parameters"] == sum(p.numel() for p in Sam2(TINY).parameters())
    assert facts["sha256"] == sha256_of(place / "tiny.safetensors")
    assert facts["memory"] and not facts["verified"] and facts["official"] is None
    text = shell("info tiny.safetensors")[1]
    assert facts["sha256"] in text and "tiny-random" in text and "no, this is not an official file" in text


def test_info_knows_an_official_file_by_its_hash(shell, place, monkeypatch):
    sha256 = sha256_of(place / "tiny.safetensors")
    monkeypatch.setitem(OFFICIAL, "known", OfficialFile("known", "known.pt", "https://there", 1, sha256))
    facts = json.loads(shell("info tiny.safetensors --json")[1])
    assert facts["verified"] and facts["official"] == "known"
    assert "yes, this is the official known" in shell("info tiny.safetensors")[1]


def test_info_on_a_name_says_what_would_come_and_downloads_nothing(shell, place):
    status, out, _ = shell("info sam2.1_hiera_tiny --json")
    facts = json.loads(out)
    assert status == 0
    assert not facts["downloaded"] and facts["bytes"] == 156_008_466 and facts["licence"] == "Apache-2.0"
    assert facts["parameters"] == 38_962_498 and facts["path"].startswith(str(place / "cache"))
    text = shell("info sam_vit_b")[1]
    assert "not downloaded" in text and "https://" in text and "cannot record" in text
    assert not (place / "cache").exists()


def test_info_on_edgetam_says_by_what_it_will_be_verified(shell):
    status, out, _ = shell("info edgetam --json")
    facts = json.loads(out)
    assert (status, facts["family"], facts["memory"], facts["parameters"]) == (0, "EdgeTAM", True, 13_895_794)
    assert facts["sha256"] is None and facts["git_blob"] == "abd54d22bbd22ba3e53cf59a307e59e0f3701be6"
    text = shell("info edgetam")[1]
    assert "git blob" in text and "https://github.com/facebookresearch/EdgeTAM/" in text


# ---- record


def test_record_prints_each_choice_and_writes_the_prior(shell, place):
    status, out, err = shell(f"{RECORD} --point 15,24 --background 60,40 --label 7 --name disc --json")
    facts = json.loads(out)
    assert (status, err) == (0, "")
    prior = PriorMemory.load(place / "new.safetensors")
    recording = prior.recordings[0]
    assert (recording.label, recording.name, recording.image_name) == (7, "disc", "cat.png")
    assert recording.prompt.points_xy.tolist() == [[15, 24], [60, 40]]
    assert recording.prompt.labels.tolist() == [1, 0]
    assert len(facts["masks"]) == 4 and sum(mask["taken"] for mask in facts["masks"]) == 1
    assert facts["masks"][facts["taken"]]["predicted_iou"] == pytest.approx(recording.iou, abs=1e-4)
    assert facts["presence"] == pytest.approx(recording.presence, abs=1e-4)


def test_record_as_text_marks_the_choice_that_was_asked_for(shell, place):
    status, out, _ = shell(f"{RECORD} --box 4,10,30,40 --mask-index 3")
    assert status == 0
    rows = re.findall(r"^ +(\d) +(\d\.\d\d) +\d+\.\d%(  taken)?$", out, re.MULTILINE)
    assert [(int(row[0]), bool(row[2])) for row in rows] == [(0, False), (1, False), (2, False), (3, True)]
    assert "Recorded label 1 on cat.png, 64 x 48" in out and "1 recording\n" in out
    assert PriorMemory.load("new.safetensors").recordings[0].mask_index == 3


def test_record_warns_where_the_model_sees_nothing(shell):
    _, out, _ = shell("record cat.png --model blind.safetensors --point 15,24 --out new.safetensors")
    assert "the model sees no object there" in out


def test_record_takes_a_frame_of_a_video(shell, place):
    assert shell("record clip.mp4@-1 --model tiny.safetensors --point 15,24 --out new.safetensors")[0] == 0
    recording = PriorMemory.load(place / "new.safetensors").recordings[0]
    with open_video(place / "clip.mp4") as video:
        assert recording.image_hash == image_hash(video.frame(FRAMES - 1))
    assert recording.image_name == "clip.mp4@-1"


def test_append_adds_and_begins_where_there_is_nothing(shell, place):
    for label in (1, 2):
        assert shell(f"{RECORD} --point 15,24 --label {label} --append")[0] == 0
    assert PriorMemory.load(place / "new.safetensors").labels == (1, 2)
    assert "3 recordings" in shell(f"{RECORD} --point 15,24 --append")[1]


def test_overwrite_begins_anew(shell, place):
    assert shell(f"{RECORD} --point 15,24 --label 2")[0] == 0
    assert shell(f"{RECORD} --point 15,24 --label 3 --overwrite")[0] == 0
    assert PriorMemory.load(place / "new.safetensors").labels == (3,)


def test_record_keeps_how_the_image_was_encoded(shell, place):
    assert shell(f"{RECORD} --point 15,24 --side 96 --keep-aspect --dtype bfloat16")[0] == 0
    prior = PriorMemory.load(place / "new.safetensors")
    assert (prior.recordings[0].side, prior.recordings[0].square) == (96, False)
    assert prior.memories[0].spatial.shape[1:] == (4, 6)


# ---- track


@pytest.fixture(scope="session")
def expected(originals):
    """The results of tracking the clip in Python."""
    model = load_model(originals / "tiny.safetensors", device="cpu")
    prior = PriorMemory.load(originals / "prior.safetensors")
    with open_video(originals / "clip.mp4") as video:
        return list(Tracker(model, prior, TrackSettings()).run(video))


def test_graphs_can_be_asked_for_and_change_nothing_on_a_cpu(shell, place, expected):
    assert shell(f"{TRACK} --graphs --json")[0] == 0
    labels, done = _labels(place / "labels.zarr")
    assert done.all() and (labels == np.stack([result.labels for result in expected])).all()


def test_track_writes_what_python_gives(shell, place, expected):
    status, out, err = shell(f"{TRACK} --scores s.csv --overlay o.mp4 --json")
    facts = json.loads(out)
    assert (status, err) == (0, "")
    labels, done = _labels(place / "labels.zarr")
    assert done.all() and (labels == np.stack([result.labels for result in expected])).all()
    assert facts["frames"] == facts["done"] == facts["tracked"] == FRAMES
    presence = np.mean([result.scores[1].presence for result in expected])
    assert facts["objects"]["1"] == {
        "name": "cat",
        "lost": sum(result.scores[1].lost for result in expected),
        "presence": pytest.approx(presence, abs=1e-3),
        "iou": pytest.approx(np.mean([result.scores[1].iou for result in expected]), abs=1e-3),
    }
    assert (facts["labels"], facts["scores"], facts["overlay"]) == ("labels.zarr", "s.csv", "o.mp4")
    assert (facts["model"], facts["device"], facts["dtype"]) == ("tiny-random", "cpu", "float32")
    rows = (place / "s.csv").read_text().splitlines()
    assert rows[0] == "frame,label,name,presence,iou,lost" and len(rows) == 1 + FRAMES
    assert rows[4].startswith("3,1,cat,")
    with open_video(place / "o.mp4") as overlay:
        assert overlay.shape == (FRAMES, HEIGHT, WIDTH, 3)
        assert overlay.fps == pytest.approx(10)


def test_track_as_text_says_what_was_found_and_where_it_is(shell):
    status, out, err = shell(f"{TRACK} --scores s.csv")
    assert (status, err) == (0, "")
    assert re.search(r"^10 frames tracked in \d+\.\d s, \S+ frames/s$", out, re.MULTILINE)
    assert re.search(r"^ +1 +0 +\d\.\d\d +0\.\d\d  cat$", out, re.MULTILINE)
    assert "labels   labels.zarr\nscores   s.csv\n" in out


@pytest.mark.parametrize(
    ("options", "done"),
    [
        ("--frames 2:5", {2, 3, 4}),
        ("--frames -3:", {7, 8, 9}),
        ("--frames :-8", {0, 1}),
        ("--frames 8:99", {8, 9}),
        ("--frames : --backward", set(range(FRAMES))),
        ("--frames 4:7 --backward", {4, 5, 6}),
    ],
)
def test_frames_are_those_of_a_python_slice(shell, place, options, done):
    status, out, _ = shell(f"{TRACK} {options} --overlay o.mp4 --json")
    assert status == 0
    assert set(np.flatnonzero(_labels(place / "labels.zarr")[1])) == done
    assert json.loads(out)["done"] == len(done)
    with open_video(place / "o.mp4") as overlay:
        assert len(overlay) == len(done)


def test_track_says_early_what_it_will_take(shell, monkeypatch):
    assert " frames at 64" not in shell(TRACK)[2]  # it is soon over
    monkeypatch.setattr("napari_samexp.cli.track.SHORT_RUN_S", 0.0)
    status, out, err = shell(f"{TRACK} --overwrite --json")
    facts = json.loads(out)
    assert status == 0 and facts["expected_seconds"] > 0 and not err
    _, _, err = shell(f"{TRACK} --overwrite")
    assert re.search(r"about \d+ (s|min) for 10 frames at 64$", err, re.MULTILINE)
    _, _, err = shell(f"{TRACK} --overwrite --side 32")
    assert re.search(r"about \d+ (s|min) for 10 frames at 32$", err, re.MULTILINE)


def test_a_smaller_side_is_told_where_a_run_takes_long():
    work = Work(VARIANTS["sam2.1_hiera_tiny"], TrackSettings(), (HEIGHT, WIDTH), {1: 1})
    forecast = Forecast(work)
    for seen in range(3):
        forecast.observe(1e-11 * work.multiplications(seen))
    words = _expectation(forecast, 1000, 3500.0, "cpu")
    assert re.fullmatch(r"about 1\.0 h for 1000 frames at 1024; --side 512 would take about \d min", words)
    assert _expectation(forecast, 1000, 3500.0, "cuda:0") == "about 1.0 h for 1000 frames at 1024"
    assert _expectation(forecast, 4, 10.0, "cpu") == ""


def test_backward_begins_at_the_end(shell, place, originals, expected):
    assert shell(f"{TRACK} --backward")[0] == 0
    model = load_model(originals / "tiny.safetensors", device="cpu")
    with open_video(place / "clip.mp4") as video:
        prior = PriorMemory.load(place / "prior.safetensors")
        results = list(Tracker(model, prior, TrackSettings(direction="backward")).run(video))
    labels, _ = _labels(place / "labels.zarr")
    assert (labels == np.stack([result.labels for result in results[::-1]])).all()


def test_every_setting_reaches_the_store(shell, place):
    options = "--side 96 --keep-aspect --recent 2 --pointers 3 --prior-time elapsed --no-memories --keep-lost"
    assert shell(f"{TRACK} {options} --frames :2 --dtype bfloat16")[0] == 0
    with LabelStore.open(place / "labels.zarr", mode="r") as store:
        settings = TrackSettings(
            side=96,
            square=False,
            recent=2,
            pointers=3,
            prior_time="elapsed",
            store_memories=False,
            keep_lost=True,
        )
        assert store.details["settings"] == json.loads(settings.to_json())
        assert "bfloat16" in store.identity.model


def test_resume_goes_on_and_equals_one_run(shell, place, expected):
    assert shell(f"{TRACK} --frames 0:4")[0] == 0
    status, out, _ = shell(f"{TRACK} --resume")
    assert status == 0
    assert "6 frames tracked" in out and "4 frames had been tracked before" in out
    labels, done = _labels(place / "labels.zarr")
    assert done.all() and (labels == np.stack([result.labels for result in expected])).all()
    facts = json.loads(shell(f"{TRACK} --resume --json")[1])
    assert (facts["tracked"], facts["done"]) == (0, FRAMES)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("labels.zarr/scores.jsonl", "thesis/notes"),
        ("labels.zarr/memory", "thesis"),
        ("labels.zarr/added.safetensors", "thesis/notes"),
        (".labels.zarr.samexp", "thesis"),
    ],
)
def test_resume_of_a_store_from_a_hostile_archive_changes_nothing(shell, place, name, target):
    (place / "sent").mkdir()
    assert shell(f"{TRACK} --frames 0:4".replace("labels.zarr", "sent/labels.zarr"))[0] == 0
    hostile_archive.write_thesis(place / "here")
    hostile_archive.send(place / "sent", place / "here", {name: target})
    before = _content(place)
    status, out, err = shell(f"{TRACK} --resume".replace("labels.zarr", "here/labels.zarr"))
    assert status == 2 and not out
    assert err.count("\n") == 1 and f"{place / 'here' / name} is a link and no ordinary" in err
    assert _content(place) == before
    hostile_archive.require_untouched(place / "here")


def test_a_link_that_a_person_names_is_written_through_whole(shell, place):
    """Theirs to name: the link stays, and what it leads to is the old file or the new one."""
    (place / "far").mkdir()
    for name in ("s.csv", "o.mp4", "new.safetensors"):
        (place / name).symlink_to(place / "far" / name)
    assert shell(f"{TRACK} --frames 0:2 --scores s.csv --overlay o.mp4")[0] == 0
    assert shell(RECORD + " --point 15,24")[0] == 0
    assert all((place / name).is_symlink() for name in ("s.csv", "o.mp4", "new.safetensors"))
    assert sorted(file.name for file in (place / "far").iterdir()) == ["new.safetensors", "o.mp4", "s.csv"]
    assert len((place / "far" / "s.csv").read_text().splitlines()) == 3
    assert len(PriorMemory.load(place / "far" / "new.safetensors").recordings) == 1


def test_resume_begins_where_there_is_nothing(shell, place):
    assert shell(f"{TRACK} --frames 0:2 --resume")[0] == 0
    assert _labels(place / "labels.zarr")[1].sum() == 2


def test_overwrite_replaces_the_store_and_older_outputs_are_replaced_whole(shell, place):
    (place / "s.csv").write_text("older")
    (place / "o.mp4").write_text("older")
    assert shell(f"{TRACK} --frames 0:4")[0] == 0
    assert shell(f"{TRACK} --frames 0:2 --overwrite --scores s.csv --overlay o.mp4")[0] == 0
    assert _labels(place / "labels.zarr")[1].sum() == 2
    assert len((place / "s.csv").read_text().splitlines()) == 3
    assert not [path.name for path in place.iterdir() if path.name.startswith(".")]


def test_another_model_tracks_with_the_recorded_images(shell, place):
    line = TRACK.replace("tiny", "other") + " --frames 0:2 --json"
    assert shell(line)[0] == 2
    status, out, _ = shell(f"{line} --image clip.mp4@1 --image cat.png")
    assert (status, json.loads(out)["done"]) == (0, 2)
    status, _, err = shell(f"{line} --overwrite --image clip.mp4@1")
    assert status == 2 and "cat.png" in err


def test_the_model_is_found_by_the_prior_if_it_is_an_official_one(shell, place, monkeypatch):
    sha256 = sha256_of(place / "tiny.safetensors")
    entry = OfficialFile("tiny-random", "kept.pt", "https://there", 1, sha256)
    monkeypatch.setitem(OFFICIAL, "tiny-random", entry)
    (place / "cache").mkdir()
    (place / "cache" / "kept.pt").write_bytes((place / "tiny.safetensors").read_bytes())
    line = "track clip.mp4 --prior prior.safetensors --out labels.zarr --frames :1 --json"
    status, out, _ = shell(f"{line} --scores s.csv")
    assert status == 0
    assert json.loads(out)["model"] == "tiny-random"


def test_lost_frames_are_counted(shell):
    assert shell("record cat.png --model blind.safetensors --point 15,24 --out blind_prior")[0] == 0
    line = "track clip.mp4 --prior blind_prior --model blind.safetensors --out labels.zarr --frames :3 --json"
    assert json.loads(shell(line)[1])["objects"]["1"]["lost"] == 3


def test_a_folder_of_images_is_a_video_whose_images_are_safe(shell, place, monkeypatch):
    (place / "many").mkdir()
    for i in range(3):
        write_png(place / "many" / f"{i}.png", read_frame(place / "cat.png"))
    line = TRACK.replace("clip.mp4", "many")
    status, _, err = shell(f"{line} --scores many/1.png")
    assert status == 2 and "lies in many" in err
    assert shell(f"{line} --scores many/s.csv")[0] == 0
    monkeypatch.chdir(place / "many")
    inside = "track . --prior ../prior.safetensors --model ../tiny.safetensors --out ../second.zarr"
    assert shell(f"{inside} --scores s.csv --overlay o.mp4")[0] == 0


# ---- progress


def test_without_a_terminal_progress_is_plain_lines(shell, monkeypatch):
    monkeypatch.setattr(progress_module, "LINE_EVERY", 0.0)
    _, _, err = shell(f"{TRACK} --overlay o.mp4")
    assert re.search(r"^clip\.mp4: 3/10, \S+ frames/s, 0:00:\d\d left$", err, re.MULTILINE)
    assert "o.mp4: 9/10" in err
    assert shell(f"{TRACK} --overwrite --json")[2] == ""


def test_downloads_are_shown_in_megabytes(capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "LINE_EVERY", 0.0)
    with progress_module.progress("Downloading x", "bytes", quiet=False) as update:
        update(0, None)
        update(5_000_000, 20_000_000)
        update(6_000_000, None)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Downloading x: 5/20 MB, ") and first.endswith(" left")
    assert second.startswith("Downloading x: 6 MB, ") and "MB/s" in second


class Terminal(io.StringIO):
    """Standard error as a terminal."""

    def isatty(self):
        return True


def test_on_a_terminal_progress_is_a_bar_that_goes_away(shell, monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", terminal)
    status, out, _ = shell(f"{TRACK} --overlay o.mp4")
    shown = terminal.getvalue()
    assert status == 0 and out.startswith("10 frames tracked")
    assert re.search(r"clip\.mp4 .*10/10", shown) and " left" in shown
    assert re.search(r"o\.mp4 .*9/10", shown)
    assert shown.endswith("\x1b[2K")  # the line is cleared


# ---- the process


def test_ctrl_c_keeps_all_finished_frames_and_resume_equals_one_run(place):
    long = place / "long.mp4"
    write_mp4(long, _frames(24).repeat(50, axis=0), 10)
    line = TRACK.replace("clip.mp4", "long.mp4").split()
    process = subprocess.Popen(
        [*COMMAND, *line], cwd=place, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    journal = place / "labels.zarr" / "scores.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    kept = int(
        re.fullmatch(r"(?:long.*\n)*napari-samexp: Stopped: (\d+) of 1200 .*--resume goes on\.\n", err)[1]
    )
    with LabelStore.open(place / "labels.zarr") as store:  # nobody holds it any more
        assert store.done.sum() == kept >= 3
    until = f"0:{kept + 3}"
    assert run([*line, "--frames", until, "--resume", "--json"]) == 0
    assert run([*line, "--frames", until, "--out", "whole.zarr", "--json"]) == 0
    stopped, whole = _labels("labels.zarr"), _labels("whole.zarr")
    assert (stopped[0] == whole[0]).all() and (stopped[1] == whole[1]).all()


def test_ctrl_c_waits_for_the_frame_under_way(shell, place, monkeypatch):
    write = LabelStore.write

    def pressed(store, result):
        if result.index == 2:
            signal.raise_signal(signal.SIGINT)
        write(store, result)

    monkeypatch.setattr(LabelStore, "write", pressed)
    status, out, err = shell(f"{TRACK} --scores s.csv")
    assert (status, out) == (130, "")
    assert "Stopped: 3 of 10 frames are in" in err
    assert not (place / "s.csv").exists()


def test_ctrl_c_anywhere_else_is_a_word_and_130(shell, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_samexp.cli.info.locate", interrupted)
    assert shell("info starter") == (130, "", "napari-samexp: Stopped.\n")


def test_ctrl_c_while_the_overlay_is_written_keeps_the_labels(shell, place, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_samexp.render.overlay.write_overlay", interrupted)
    status, out, err = shell(f"{TRACK} --overlay o.mp4")
    assert (status, out) == (130, "")
    assert "10 of 10 frames" in err
    assert _labels(place / "labels.zarr")[1].all()


def test_the_second_ctrl_c_stops_at_once_and_the_handler_goes_away():
    before = signal.getsignal(signal.SIGINT)
    with progress_module.interruptible() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_thread_can_track_too():
    seen = []

    def track():
        with progress_module.interruptible() as interrupt:
            seen.append(interrupt.requested)

    thread = threading.Thread(target=track)
    thread.start()
    thread.join()
    assert seen == [False]


def test_the_entry_point_exits_with_the_status(shell, monkeypatch):
    for line, status in (("--version", 0), ("info none.pt", 2)):
        monkeypatch.setattr(sys, "argv", ["napari-samexp", *line.split()])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == status


def test_a_process_exits_with_two_and_one_sentence(place):
    done = subprocess.run(
        [*COMMAND, "info", "none.pt"], capture_output=True, text=True, env=ENVIRONMENT, cwd=place
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_reader_that_goes_away_is_no_reason_to_complain(place):
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [*COMMAND, "--help"], stdout=theirs, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("line", ["--debug info none.pt", "info none.pt --debug", "info --debug none.pt"])
def test_debug_shows_the_traceback_before_the_sentence(shell, line):
    status, out, err = shell(line)
    assert (status, out) == (2, "")
    assert "Traceback" in err and "CheckpointError" in err
    assert err.splitlines()[-1].startswith("napari-samexp: ")


def test_debug_behind_two_dashes_is_a_name(shell):
    status, _, err = shell("info -- --debug")
    assert status == 2
    assert "'--debug'" in err and "Traceback" not in err


def test_a_fault_of_our_own_is_a_sentence_too(shell, monkeypatch):
    def broken(path):
        raise RuntimeError("this\nis odd")

    monkeypatch.setattr("napari_samexp.cli.info.locate", broken)
    status, out, err = shell("info starter")
    assert (status, out) == (1, "")
    sentence = "RuntimeError: this is odd; this is a fault of napari-samexp, which --debug shows in full."
    assert err == f"napari-samexp: {sentence}\n"


def test_names_cannot_command_the_terminal(place, capsys):
    name = "c\x1b[2Jat\nx"
    assert run([*RECORD.split(), "--point", "15,24", "--name", name]) == 0
    assert run([*TRACK.replace("prior.", "new.").split(), "--frames", ":1"]) == 0
    assert run(["info", "no\x1b[2J.pt"]) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "c [2Jat x" in out
