"""``napari-samexp record``: what it prints and writes."""

import json
import re

import pytest

from napari_samexp.io.video import open_video
from napari_samexp.tracking import PriorMemory
from napari_samexp.tracking.recording import image_hash
from tests.tiny_files import FRAMES, RECORD


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
