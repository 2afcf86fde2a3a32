"""Shared files lie in the current folder: whatever modules are among them, no process of ours runs one."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from napari_samexp import _children
from napari_samexp.cli import run
from napari_samexp.samples import load_sample

# what some library asks for in vain, and what an attacker may think of
WANTED = {"cupy", "lz4", "snappy", "numba", "torchvision", "usercustomize", "sitecustomize", "uvloop"}
NAMES = WANTED | set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())
TRAP = """import os
open(os.path.join({ran!r}, f"{name} in {{os.getpid()}}"), "w").close()
raise ImportError("a module of the current folder")
"""

# a worker and shared memory, once to import what this process needs, and again among the traps
ENGINE = """
import os, shutil, signal, sys, threading
from multiprocessing import resource_tracker
from pathlib import Path
import numpy as np
from napari_samexp.engine import EngineClient, WorkerOptions
from napari_samexp.engine.messages.model import Ready
from napari_samexp.engine.sharing import SharedArray

def use(session):
    SharedArray.of(np.zeros(3)).release()
    ready = threading.Event()
    client = EngineClient(
        lambda reply: isinstance(reply, Ready) and ready.set(), Path(session), WorkerOptions(threads=1)
    )
    client.start()
    assert ready.wait(100)
    client.close()

def main():
    traps, session = sys.argv[1:]
    use(session)
    os.kill(resource_tracker._resource_tracker._pid, signal.SIGKILL)
    before = dict(os.environ), list(sys.path)
    shutil.copytree(traps, ".", dirs_exist_ok=True)
    use(session)
    assert before == (dict(os.environ), list(sys.path)) and __file__
    print(os.getpid())

main()
"""
# what pip makes of an entry point
COMMAND = "import sys\nfrom napari_samexp.cli import main\nsys.exit(main())\n"


@pytest.fixture(scope="session")
def sample_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a prior and the script of an installation."""
    folder = tmp_path_factory.mktemp("sample")
    sample = load_sample()
    (folder / "napari-samexp").write_text(COMMAND)
    x, y = sample.points_xy[0]
    image = str(sample.clip_path.with_name("prior.png"))
    assert run(["record", image, "--point", f"{x},{y}", "--out", str(folder / "one.safetensors")]) == 0
    return folder


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """A folder in which each trap leaves its name."""
    (tmp_path / "ran").mkdir()
    return tmp_path / "ran"


def trapped(folder: Path, ran: Path, without: set[str] | frozenset[str] = frozenset()) -> Path:
    """Return a folder with a module of each name."""
    folder.mkdir()
    for name in NAMES - without:
        (folder / f"{name}.py").write_text(TRAP.format(ran=str(ran), name=name))
    return folder


def plain_environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return own | {"OMP_NUM_THREADS": "1"}  # else processes wait for each other


def started(line: list[object], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, line)], cwd=folder, env=plain_environment() | more,
        capture_output=True, text=True, timeout=250, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def what_ran(ran: Path) -> list[str]:
    return sorted(entry.name for entry in ran.iterdir())


def test_a_trap_is_a_trap(tmp_path: Path, ran: Path) -> None:
    """Python itself runs them, else the other tests say nothing."""
    folder = trapped(tmp_path / "here", ran)
    assert started(["-c", "import pickle"], folder).returncode == 1
    assert what_ran(ran)[0].startswith("pickle in ")


@pytest.mark.parametrize("way", ["script", "script elsewhere", "-c", "-m"])
@pytest.mark.skipif(os.name == "nt", reason="kills the resource tracker, which Windows does not have")
def test_the_model_and_the_resource_tracker(tmp_path: Path, ran: Path, way: str) -> None:
    traps, here = trapped(tmp_path / "traps", ran), tmp_path / "here"
    here.mkdir()
    place = tmp_path if way == "script elsewhere" else here
    (place / "engine.py").write_text(ENGINE)
    source = f"__file__ = ''\n{ENGINE}".replace(" and __file__", "")
    line = {"-c": ["-c", source], "-m": ["-m", "engine"]}.get(way, [place / "engine.py"])
    done = started([*line, traps, tmp_path / "session"], here)
    assert done.returncode == 0, done.stderr
    # the process that people start has the folder in its path by Python's own rule; no other process may
    assert [name for name in what_ran(ran) if not name.endswith(f" in {done.stdout.strip()}")] == []


def batch_line(sample_files: Path) -> list[object]:
    clip = load_sample().clip_path
    return [
        "batch", sample_files / "one.safetensors", "--videos", clip, "--frames", ":2", "--workers", 2,
        "--device", "cpu", "--out", "many",
    ]  # fmt: skip


def test_the_workers_of_a_batch(sample_files: Path, tmp_path: Path, ran: Path) -> None:
    folder = trapped(tmp_path / "here", ran)
    done = started([sample_files / "napari-samexp", *batch_line(sample_files)], folder)
    assert (done.returncode, what_ran(ran)) == (0, []), done.stderr


def test_the_command_as_a_module(sample_files: Path, tmp_path: Path, ran: Path) -> None:
    """What Python imports before our first line is out of our hands: all others are traps."""
    before = "import runpy, sys, napari_samexp; print(*{name.partition('.')[0] for name in sys.modules})"
    early = set(started(["-P", "-c", before], tmp_path).stdout.split())
    assert "runpy" in early and early.isdisjoint({"pickle", "signal", "socket", "numpy", "torch", "typer"})
    folder = trapped(tmp_path / "here", ran, early)
    done = started(["-m", "napari_samexp", *batch_line(sample_files)], folder)
    assert (done.returncode, what_ran(ran)) == (0, []), done.stderr


def test_the_demo_without_a_window(sample_files: Path, tmp_path: Path, ran: Path) -> None:
    folder = trapped(tmp_path / "here", ran)
    done = started([sample_files / "napari-samexp", "demo", "--headless"], folder)
    assert (done.returncode, what_ran(ran)) == (0, []), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="sees on Linux alone what a process has loaded")
def test_the_demo_in_its_window(sample_files: Path, tmp_path: Path, ran: Path) -> None:
    folder = trapped(tmp_path / "here", ran)
    environment = plain_environment() | {"NAPARI_SAMEXP_HOME": str(tmp_path / "home")}
    if "DISPLAY" not in environment:
        environment |= {"DISPLAY": ":none", "QT_QPA_PLATFORM": "offscreen"}
    with (tmp_path / "said").open("w") as said:
        demo = subprocess.Popen(
            [sys.executable, sample_files / "napari-samexp", "demo"],
            cwd=folder, env=environment, stdout=said, stderr=said,
        )  # fmt: skip
    try:
        end = time.monotonic() + 200
        while demo.poll() is None and not what_ran(ran) and time.monotonic() < end:
            if any(has_torch(child) for child in children(demo) if "spawn_main" in " ".join(child.cmdline())):
                break
            time.sleep(0.2)
        else:
            pytest.fail(f"{what_ran(ran)}, {(tmp_path / 'said').read_text()}")
    finally:
        for process in (*children(demo), psutil.Process(demo.pid)):
            process.kill()
        demo.wait()
    assert what_ran(ran) == []


def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def has_torch(process: psutil.Process) -> bool:
    return any("libtorch" in area.path for area in process.memory_maps())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, in a path that has it in three ways."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), "/elsewhere", "below", *sys.path])
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return tmp_path


def test_what_a_start_changes_is_changed_back(place: Path) -> None:
    path, main = list(sys.path), sys.modules["__main__"]
    before = main.__spec__, getattr(main, "__file__", None)
    with pytest.raises(ZeroDivisionError), _children.starting_python, _children.starting_python:
        assert os.environ["PYTHONSAFEPATH"] == "1"
        assert sys.path[0] == "/elsewhere" and sys.path == [p for p in path if p in sys.path]
        assert not hasattr(main, "__file__") and main.__spec__ is None
        sys.path.insert(0, "/new")
        _ = 1 / 0
    assert "PYTHONSAFEPATH" not in os.environ
    assert sorted(sys.path) == sorted(["/new", *path])
    assert (main.__spec__, getattr(main, "__file__", None)) == before


def test_starts_at_the_same_time_share_what_they_change(place: Path) -> None:
    one, other = _children._Shared(_children._all_hidden), list(sys.path)
    with one:
        one.__enter__()
    assert sys.path[0] == "/elsewhere"  # the second is still at it
    one.__exit__()
    assert sys.path == other


def test_a_persons_own_word_on_the_path_is_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "yes")
    with _children.starting_python:
        pass
    assert os.environ["PYTHONSAFEPATH"] == "yes"


def test_where_packages_are_is_never_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may work in the very folder that they are installed in."""
    for folder in (Path(pytest.__file__).parents[1], Path(_children.__file__).parents[1]):
        monkeypatch.chdir(folder)
        with _children.starting_python:
            assert str(folder) in sys.path


def test_a_current_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with _children.starting_python:
        assert "" not in sys.path
    monkeypatch.chdir(tmp_path)
