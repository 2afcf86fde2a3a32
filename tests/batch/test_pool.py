"""Real processes: a killed worker costs nothing, Ctrl-C keeps what is done, and a scheduler elsewhere."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from napari_samexp.batch import pool as pool_module
from napari_samexp.batch.jobs import JobProgress, JobResult
from napari_samexp.batch.manifest import Manifest
from napari_samexp.batch.pool import DaskPool, default_workers
from napari_samexp.batch.run import run_jobs
from napari_samexp.batch.work import run_job
from napari_samexp.cli import run
from napari_samexp.errors import SettingsError
from napari_samexp.io.labels import LabelStore
from napari_samexp.render.mp4 import write_mp4
from tests.tiny_files import disc_frames

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
LONG = 240


@pytest.fixture
def jobs(job, place):
    """Two short jobs and one of seconds."""
    with_long = np.tile(disc_frames(12), (LONG // 12, 1, 1, 1))
    write_mp4(place / "long.mp4", with_long, 10)
    return [
        replace(job, name=name, video=str(place / f"{name}.mp4"), store=str(place / "out" / f"{name}.zarr"))
        for name in ("long", "a", "b")
    ]


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
            if isinstance(event, JobProgress) and event.done > 3:
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


def test_nobody_without_the_batchs_own_credentials_is_served(monkeypatch):
    from distributed import Client, Security

    with DaskPool(1) as pool:
        ports = listening()
        assert len(ports) >= 4 and {ip for ip, _ in ports} == {"127.0.0.1"}
        answers = {port: set(pages(*port)) for port in ports}
        assert set.union(*answers.values()) == {404, None}
        for ip, port in (port for port, answer in answers.items() if answer == {None}):
            for kind, keys in (("tcp", Security()), ("tls", Security()), ("tls", Security.temporary())):
                with pytest.raises((OSError, TypeError)):  # a TypeError where TLS is without keys
                    Client(f"{kind}://{ip}:{port}", security=keys, timeout=0.5)
        with pytest.raises(SettingsError, match="no Dask scheduler at tls://"):
            DaskPool(None, pool._client.scheduler.address).__enter__()
        assert pool._client.run(os.getpid)  # it still serves us


def listening():
    """Return the addresses at which this process and its children wait for others."""
    own = psutil.Process()
    return [
        tuple(connection.laddr)
        for process in (own, *own.children(recursive=True))
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]


def pages(ip, port):
    """Yield the statuses of pages of Dask's web servers; None where there is no web server."""
    for page in ("", "status", "health", "metrics", "info/main/workers.html", "json/counts.json", "api/v1"):
        try:
            with urllib.request.urlopen(f"http://{ip}:{port}/{page}", timeout=5) as answer:
                yield answer.status
        except urllib.error.HTTPError as error:
            error.close()
            yield error.code
        except OSError:
            yield None


def test_workers_import_from_no_folder_that_others_may_write_to():
    before = list(sys.path)
    with DaskPool(1) as pool:
        (path,) = pool._client.run(lambda: list(__import__("sys").path)).values()
        shared = [entry for entry in path if Path(entry).is_dir() and not _is_private(Path(entry))]
    assert shared == []
    assert sys.path == before


def _is_private(folder):
    """Whether nobody else can put a file there, nor another folder in its place."""
    chain = [folder, *folder.parents]
    mine = [place.stat().st_mode & 0o077 == 0 for place in chain]
    return any(mine) or all(place.stat().st_mode & 0o022 == 0 for place in chain)


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


def test_without_cryptography_there_is_one_sentence(place, monkeypatch, capsys):
    monkeypatch.setattr(pool_module, "find_spec", lambda name: name != "cryptography" and find_spec(name))
    line = "batch cat.safetensors --model tiny.safetensors --videos a.mp4 --out many --workers 1"
    assert run(line.split()) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cryptography is not installed" in said and "[batch]" in said
    assert not (place / "many").exists()
    DaskPool(None, "tcp://host:8786")  # whose keys are not ours


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
