"""Real processes: a killed worker costs nothing, Ctrl-C keeps what is done, and a scheduler elsewhere."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from napari_samexp.batch import pool as pool_module
from napari_samexp.batch.jobs import JobResult, Progress
from napari_samexp.batch.manifest import Manifest
from napari_samexp.batch.pool import DaskPool, default_workers
from napari_samexp.batch.run import run_jobs
from napari_samexp.batch.work import run_job
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.mp4 import write_mp4
from napari_samexp.types import SettingsError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
LONG = 240


@pytest.fixture
def jobs(job, place):
    """Two short jobs and one of seconds."""
    with_long = np.tile(_drawn(), (LONG // 12, 1, 1, 1))
    write_mp4(place / "long.mp4", with_long, 10)
    return [
        replace(job, name=name, video=str(place / f"{name}.mp4"), store=str(place / "out" / f"{name}.zarr"))
        for name in ("long", "a", "b")
    ]


def _drawn():
    y, x = np.mgrid[:48, :64]
    frames = np.random.default_rng(1).integers(0, 90, (12, 48, 64, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[(y - 24) ** 2 + (x - 15 - 3 * i) ** 2 < 81] = (230, 140, 40)
    return frames


def test_a_killed_worker_costs_no_finished_frame(jobs, place):
    killed, results = [], {}
    with DaskPool(2) as pool:
        for event in run_jobs(jobs, pool, Manifest(place / "m.jsonl")):
            if isinstance(event, JobResult):
                results[event.job] = event
            elif event.job == "long" and event.done > 3 and not killed:
                killed.append(event)
                own = {child.pid: child for child in psutil.Process().children(recursive=True)}
                own[int(event.worker.rpartition(":")[2])].kill()
    assert killed and {name: result.status for name, result in results.items()} == dict.fromkeys(
        ("long", "a", "b"), "done"
    )
    # it went on, in another process, where the store of the first ended
    assert results["long"].worker != killed[0].worker
    assert results["long"].tracked <= LONG - killed[0].done
    *_, plain = run_job(replace(jobs[0], store=str(place / "plain.zarr")))
    assert plain.tracked == LONG
    with LabelStore.open(jobs[0].store) as one, LabelStore.open(place / "plain.zarr") as other:
        assert one.done.all() and one.scores == other.scores
        assert all((one.frame(t) == other.frame(t)).all() for t in range(0, LONG, 7))


def test_a_stop_ends_what_runs_after_its_frame(jobs, place):
    results, asked = [], []
    with DaskPool(1) as pool:
        for event in run_jobs(jobs, pool, Manifest(place / "m.jsonl"), stop=lambda: bool(asked)):
            if isinstance(event, Progress) and event.done > 3:
                asked.append(True)
            elif isinstance(event, JobResult):
                results.append(event)
    assert [(r.job, r.status) for r in results] == [("long", "stopped")]
    with LabelStore.open(jobs[0].store) as store:  # nobody holds it any more
        assert 3 < store.done.sum() < LONG


def test_ctrl_c_in_a_terminal_keeps_what_is_done(jobs, place):
    line = ["batch", "cat.safetensors", "--videos", "long.mp4", "a.mp4", "--out", "many", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_samexp", *line, "--model", "tiny.safetensors"],
        cwd=place, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    journal = place / "many/labels/cat/long.zarr/scores.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers, too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Stopped: 0 of 2 jobs are done in many; the same command goes on" in err
    with LabelStore.open(place / "many/labels/cat/long.zarr") as store:
        assert 3 <= store.done.sum() < LONG
    assert Manifest(place / "many/manifest.jsonl").last["cat/long"]["status"] == "stopped"


def test_no_scheduler_and_no_dask_are_a_sentence(monkeypatch):
    monkeypatch.setattr(pool_module, "CONNECT_WITHIN", 0.5)
    with (
        pytest.raises(SettingsError, match="no Dask scheduler at tcp://127"),
        DaskPool(None, "tcp://127.0.0.1:9"),
    ):
        pass
    with pytest.raises(SettingsError, match="no Dask scheduler"), DaskPool(None, "nonsense://"):
        pass
    monkeypatch.setattr(pool_module, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="napari-samexp\\[batch\\]"):
        DaskPool(1)


def test_gpus_are_dealt_out(monkeypatch):
    monkeypatch.setattr(pool_module, "_gpus", lambda: 3)
    assert default_workers() == 3
    assert [pool_module._device("auto", n) for n in (0, 1, 4, "tcp://x")] == [
        "cuda:0",
        "cuda:1",
        "cuda:1",
        "auto",
    ]
    assert pool_module._device("cpu", 1) == "cpu"
    monkeypatch.setattr(pool_module, "_gpus", lambda: 0)
    monkeypatch.setattr(pool_module, "_cores", lambda: 9)
    assert default_workers() == 4 and pool_module._device("auto", 1) == "auto"
    assert DaskPool(3)._threads() == 3 and DaskPool(None, "tcp://x")._threads() is None


def test_a_job_whose_workers_keep_dying_fails():
    class KilledWorker(Exception):
        pass

    future = SimpleNamespace(status="error", exception=lambda: KilledWorker("at length"))
    result = pool_module._result(future, "x")
    assert result.status == "failed" and "died" in result.error
    assert pool_module._result(SimpleNamespace(status="cancelled"), "x") is None
    never = SimpleNamespace(status="finished", result=lambda: JobResult("x", "stopped"))
    assert pool_module._result(never, "x") is None
