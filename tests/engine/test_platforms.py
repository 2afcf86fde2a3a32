"""What differs on Windows and macOS, as far as it can be shown anywhere."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_samexp.engine import launch, process, sharing
from napari_samexp.engine.errors import exit_error

SOURCE = Path(process.__file__).parents[1]


def test_names_of_shared_memory_are_short_enough_for_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """31 characters with the slash in front, however large the process's number is."""
    monkeypatch.setattr(os, "getpid", lambda: 4_194_304)
    shared = sharing.SharedArray((3,), np.uint8)
    try:
        assert len("/" + shared.ref.block.lstrip("/")) <= 31
    finally:
        shared.release()


def test_shared_memory_is_had_where_no_folder_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "statvfs")  # as on Windows
    shared = sharing.SharedArray.of(np.arange(3, dtype=np.uint8))
    try:
        assert sharing.read_shared(shared.ref).tolist() == [0, 1, 2]
    finally:
        shared.release()


def test_processes_are_spawned_whatever_the_systems_way_is() -> None:
    """A fork would copy Qt's threads and torch's locks; macOS and Windows do not fork."""
    texts = {path: path.read_text("utf-8") for path in SOURCE.rglob("*.py")}
    for path, text in texts.items():
        assert not re.search(r"os\.fork|get_context\((?!\"spawn\")|set_start_method", text), path
        assert not re.search(r"\bmultiprocessing\.(Process|Pool|Queue)\(", text), path


@pytest.mark.parametrize(
    "method", [m for m in ("fork", "forkserver") if m in multiprocessing.get_all_start_methods()]
)
def test_a_worker_starts_under_every_way_of_starting(tmp_path: Path, method: str) -> None:
    script = f"""
import multiprocessing, sys, threading
multiprocessing.set_start_method({method!r})
from pathlib import Path
from napari_samexp.engine import EngineClient, WorkerOptions
from napari_samexp.engine.messages.model import Ready
ready = threading.Event()
client = EngineClient(lambda reply: isinstance(reply, Ready) and ready.set(), Path(sys.argv[1]), WorkerOptions(threads=1))
client.start()
assert ready.wait(200)
client.close()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=250)


def test_text_files_are_utf8_whatever_the_systems_encoding_is() -> None:
    """On Windows, what is opened without a word is read in the local code page."""
    unsaid = re.compile(r"\.(read_text|write_text)\(\s*\)|(?<![\w.])open\([^()]*\"[rwa]t?\"\s*\)")
    for path in SOURCE.rglob("*.py"):
        found = unsaid.search(path.read_text("utf-8"))
        assert found is None, (path, found)


def test_a_worker_needs_neither_signals_nor_niceness(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[object] = []
    monkeypatch.delattr(os, "nice")  # as on Windows

    def refuse(*_: object) -> None:
        raise ValueError("signal only works in main thread")

    monkeypatch.setattr(signal, "signal", refuse)

    class Worker:
        @staticmethod
        def serve(*arguments: object) -> None:
            served.append(arguments)

    monkeypatch.setattr(launch.importlib, "import_module", lambda name: Worker)
    launch.run_worker(None, "folder", 1, 5, 3)  # type: ignore[arg-type]
    assert served == [(None, "folder", 1, 3)]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "SIGKILL"),
        (-100, "signal 100"),
        (3221225477, "exit code 3221225477"),
        (1, "exit code 1"),
        (None, ""),
    ],
)
def test_every_end_of_a_worker_is_one_sentence(code: int | None, words: str) -> None:
    """Windows has no signals: there a crash is a large number."""
    sentence = str(exit_error(code))
    assert words in sentence and "\n" not in sentence
