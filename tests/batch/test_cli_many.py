"""The commands batch and compare: what they write, what they say, and that bad input changes nothing."""

import json
import re

import numpy as np
import pytest
import tifffile

from napari_samexp.batch.jobs import JobProgress, JobResult
from napari_samexp.batch.run import InProcess
from napari_samexp.cli import run
from napari_samexp.cli.jobs import MANIFEST
from napari_samexp.cli.options import normalized
from napari_samexp.cli.progress_line import ProgressLine
from napari_samexp.io.labels import LabelStore
from tests import hostile_archive
from tests.tiny_files import content


class InThisProcess(InProcess):
    """Jobs run here, as on a pool of one."""

    workers = 1


@pytest.fixture
def shell(place, capsys, monkeypatch):
    monkeypatch.setattr("napari_samexp.batch.pool.DaskPool", lambda workers, scheduler: InThisProcess())

    def call(line):
        status = run(line.split())
        out, err = capsys.readouterr()
        return status, out, err

    return call


BATCH = "batch cat.safetensors --model tiny.safetensors --videos a.mp4 b.mp4 --out many"
COMPARE = "compare cat.safetensors dog.safetensors --model tiny.safetensors --videos a.mp4 b.mp4 --out many"

BAD_INPUT = [
    ("batch --videos a.mp4 --out many", "PRIOR..."),
    ("batch cat.safetensors --out many", "nothing to track in"),
    ("batch cat.safetensors --videos --out many", "nothing to track in"),
    ("batch cat.safetensors --videos a.mp4", "--out"),
    ("batch none.safetensors --videos a.mp4 --out many", "names no file"),
    ("batch cat.png --videos a.mp4 --out many", "no prior file"),
    ("batch cat.safetensors --videos none*.mp4 --out many", "names no file"),
    ("batch cat.safetensors --videos a.mp4 --out many", "--model"),
    ("batch cat.safetensors --videos a.mp4 --out many --model sam_vit_b", "no memory"),
    ("batch cat.safetensors --videos a.mp4 --out many --model sam2_hiera_tiny", "recorded with"),
    (BATCH.replace("many", "cat.png"), "in a file"),
    (f"{BATCH} --workers 0", "--workers"),
    (f"{BATCH} --workers 2 --scheduler tcp://x:1", "exclude each other"),
    (f"{BATCH} --frames 3", "give A:B"),
    (f"{BATCH} --recent 9", "--recent"),
    ("compare cat.safetensors --model tiny.safetensors --out many", "--videos or --images"),
    (f"{COMPARE} --vary colour=1,2", "--vary"),
    (f"{COMPARE} --vary recent=3", "fewer than two"),
    (f"{COMPARE} --vary recent=5,9", "recent"),
    (f"{COMPARE} --ground-truth none", "no folder"),
    (f"{COMPARE} --ground-truth empty", "holds nothing"),
    (f"{COMPARE} --model tiny.safetensors --model other.safetensors --image none.png", "give each once"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "phrase"), BAD_INPUT, ids=[line[-50:] for line, _ in BAD_INPUT])
def test_bad_input_is_one_sentence_and_changes_nothing(shell, place, line, phrase):
    (place / "empty").mkdir()
    before = content(place)
    status, out, err = shell(line)
    assert (status, out) == (2, "")
    assert err.startswith("napari-samexp: ") and err.count("\n") == 1
    assert phrase in err
    assert content(place) == before and not (place / "many").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("batch p --videos a b --out d", "batch p --videos a --videos b --out d"),
        ("batch --videos a b --out d p", "batch --videos a --videos b --out d p"),
        ("batch p --videos=a --videos b", "batch p --videos=a --videos b"),
        ("batch p --videos --out d", "batch p --out d"),
        ("batch p --videos", "batch p"),
        ("compare p --images a b --videos c", "compare p --images a --images b --videos c"),
        ("compare p --videos a b -- q r", "compare p --videos a --videos b -- q r"),
        ("track v --videos a b", "track v --videos a b"),
        ("compare p --picture a --truth=b", "compare p --image a --ground-truth=b"),
        ("record p --name --truth", "record p --name --truth"),
        ("", ""),
    ],
)
def test_several_values_and_old_names_are_what_typer_takes(given, expected):
    assert normalized(given.split()) == expected.split()


def test_batch_writes_stores_and_a_manifest(shell, place):
    status, out, err = shell(f"{BATCH} --json")
    facts = json.loads(out)
    assert (status, err) == (0, "")
    assert (facts["jobs"], facts["done"], facts["failed"], facts["tracked"]) == (2, 2, {}, 16)
    for name in ("a", "b"):
        with LabelStore.open(place / f"many/labels/cat/{name}.zarr", mode="r") as store:
            assert store.done.all()
    lines = [json.loads(line) for line in (place / "many/manifest.jsonl").read_text().splitlines()]
    assert lines[0]["run"]["videos"] == 2
    assert set(lines[1]["hashes"]) == {"video", "prior", "model", "settings"}
    status, out, _ = shell(BATCH)
    assert status == 0 and "0 jobs done, 2 were done before, 0 failed" in out


def test_batch_of_a_pattern_goes_on_past_a_broken_video(shell, place):
    (place / "bad.mp4").write_text("no video")
    status, out, err = shell(
        "batch *.safetensors --model tiny.safetensors --videos *.mp4 --out many".replace("*.safe", "cat.safe")
    )
    assert status == 2 and "2 jobs done" in out and "cat/bad" in out
    assert err.splitlines()[-1] == "napari-samexp: 1 of 3 jobs failed; the same command retries them."
    (place / "bad.mp4").unlink()
    status, out, _ = shell("batch cat.safetensors --model tiny.safetensors --videos *.mp4 --out many")
    assert status == 0 and "2 were done before" in out


def test_changed_settings_do_not_mix(shell, place):
    assert shell(f"{BATCH} --frames :3")[0] == 0
    status, out, _ = shell(f"{BATCH} --recent 1")
    assert status == 2 and "other settings" in out
    assert shell(BATCH)[0] == 0  # the rest of the frames
    with LabelStore.open(place / "many/labels/cat/a.zarr", mode="r") as store:
        assert store.done.all()


def test_compare_writes_the_matrix_and_its_images(shell, place):
    status, out, err = shell(f"{COMPARE} --json")
    facts = json.loads(out)
    assert (status, err) == (0, "")
    assert (facts["rows"], facts["columns"]) == (["cat", "dog"], ["a", "b"])
    assert np.array(facts["found"]).shape == (2, 2) and np.array(facts["presence"]).max() > 0
    agreement = np.array(facts["agreement"])
    assert (agreement[0] == agreement[1]).all()
    assert {f.name for f in (place / "many").iterdir()} == {
        "comparison.json", "comparison.csv", "heat_maps.png", "best_and_worst.png", "manifest.jsonl", "labels"
    }  # fmt: skip
    with LabelStore.open(place / "many/labels/dog/b.zarr", mode="r") as store:
        presence = np.mean([entry[1].presence for entry in store.scores.values()])
    assert facts["presence"][1][1] == pytest.approx(presence, abs=1e-5)
    status, out, _ = shell(COMPARE)
    assert status == 0 and "mean predicted IoU where found" in out and re.search(r"  dog$", out, re.MULTILINE)


def test_compare_varies_one_setting(shell, place):
    line = "compare cat.safetensors --model tiny.safetensors --videos a.mp4 --out many --json"
    facts = json.loads(shell(f"{line} --vary recent=0,6")[1])
    assert facts["rows"] == ["cat.recent=0", "cat.recent=6"] and (place / "many/vary.png").exists()
    with LabelStore.open(place / "many/labels/cat.recent=0/a.zarr", mode="r") as store:
        assert store.details["settings"]["recent"] == 0
    for vary in ("recordings=1,2", "prior_time=fixed,elapsed"):
        assert shell(f"{line} --vary {vary}")[0] == 0


def test_compare_several_models(shell, place):
    line = "compare cat.safetensors --model tiny.safetensors --model other.safetensors --image cat.png"
    facts = json.loads(shell(f"{line} --videos a.mp4 --out many --json")[1])
    assert facts["rows"] == ["cat.tiny", "cat.other"] and facts["failed"] == {}


def test_compare_images_each_on_its_own(shell, place):
    (place / "images").mkdir()
    for name in ("1", "2", "10"):
        (place / "images" / f"{name}.png").write_bytes((place / "cat.png").read_bytes())
    line = "compare cat.safetensors --model tiny.safetensors --images images/*.png --out many --json"
    facts = json.loads(shell(line)[1])
    assert facts["columns"] == ["1", "2", "10"] and facts["tracked"] == 3
    assert len(set(facts["presence"][0])) == 1  # the same image, and no memory of the others


def test_compare_with_a_ground_truth(shell, place):
    (place / "truth").mkdir()
    with LabelStore.open(_tracked(shell, place), mode="r") as store:
        labels = np.stack([store.frame(t) for t in range(8)])
    tifffile.imwrite(place / "truth" / "a.tif", labels, photometric="minisblack")
    facts = json.loads(shell(f"{COMPARE} --ground-truth truth --json")[1])
    assert facts["jf"][0] == [1, None]


def _tracked(shell, place):
    assert shell(COMPARE)[0] == 0
    return place / "many/labels/cat/a.zarr"


def test_a_failed_job_is_a_hole_in_the_matrix(shell, place):
    (place / "bad.mp4").write_text("no video")
    status, out, _ = shell(COMPARE.replace("b.mp4", "bad.mp4") + " --json")
    facts = json.loads(out)
    assert status == 0 and facts["presence"][0][1] is None and set(facts["failed"]) == {"cat/bad", "dog/bad"}


def test_ctrl_c_keeps_what_is_done(shell, place, monkeypatch):
    import signal

    write = LabelStore.write

    def pressed(store, result):
        if result.index == 3 and store.path.name == "b.zarr":
            signal.raise_signal(signal.SIGINT)
        write(store, result)

    monkeypatch.setattr(LabelStore, "write", pressed)
    status, out, err = shell(BATCH)
    assert (status, out) == (130, "") and "Stopped: 1 of 2 jobs are done in many" in err
    monkeypatch.setattr(LabelStore, "write", write)
    assert json.loads(shell(f"{BATCH} --json")[1])["tracked"] == 4


def test_all_jobs_are_one_line(capsys, monkeypatch):
    monkeypatch.setattr("napari_samexp.cli.progress_line.LINE_EVERY", 0.0)
    with ProgressLine(4, quiet=False) as shown:
        shown.update(JobResult("z", "skipped", 10))
        shown.update(JobProgress("a", 5, 10))
        shown.update(JobProgress("a", 9, 10))
        shown.update(JobResult("a", "done", 10, 5))
        shown.update(JobResult("b", "failed", error="it\nbroke"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1/4 jobs, 0 frames/s")
    assert re.fullmatch(r"1/4 jobs, \S+ frames/s, 0:00:00 left", lines[2])
    assert lines[4] == "b: it broke" and lines[5].endswith(" left, 1 failed")


def test_the_commands_are_in_the_help(shell):
    out = shell("--help")[1]
    assert all(
        re.search(rf"^  {name} ", out, re.MULTILINE) for name in ("batch", "compare", "evaluate", "export")
    )
    assert MANIFEST in shell("batch --help")[1]


@pytest.mark.parametrize("name", ["comparison.json", "comparison.csv", "heat_maps.png", "manifest.jsonl"])
def test_compare_does_not_write_through_links_in_its_folder(shell, place, name):
    (place / "sent" / "matrix").mkdir(parents=True)
    hostile_archive.write_thesis(place / "here")
    hostile_archive.send(place / "sent", place / "here", {f"matrix/{name}": "thesis/notes"})
    status, _, err = shell(
        "compare cat.safetensors --model tiny.safetensors --videos a.mp4 --out here/matrix"
    )
    assert status == 2 and f"{name} is a link and no ordinary file" in err
    assert [path.name for path in (place / "here" / "matrix").iterdir()] == [name]
    hostile_archive.require_untouched(place / "here")
