"""Every block of README.md and of the docs is run: Python by Python, commands by the command line.

What cannot run here carries a mark with its reason, ``<!-- skip: next "reason" -->``, and is listed below.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from napari_samexp.batch.run import InProcess
from napari_samexp.cli import run

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
)
FENCE = re.compile(r"^[ \t]*```(\w*)", re.MULTILINE)
FILES = re.compile(r"<!-- files: (.*?) -->", re.DOTALL)
SKIP = re.compile(r'<!-- skip: next "(.*?)" -->')
# `text` is for output and drawings; a command there would be one that nobody runs
NOT_RUN = {"text", "json"}
COMMAND = re.compile(r"^\s*(napari-samexp|napari|pip|python|make|git|\$) ", re.MULTILINE)
MARKED = {
    "CONTRIBUTING.md": ["runs every test, this one too"],
    "README.md": ["installs", "installs"],
    "docs/howto/gpu.md": ["needs a CUDA device"],
    "docs/howto/offline.md": ["downloads packages", "installs"],
    "docs/howto/own-checkpoint.md": ["needs your own server", "needs your own server"],
    "docs/many.md": ["needs SLURM"],
    "docs/tutorials/cluster.md": ["needs SLURM"],
}
PROGRAM = "napari-samexp"


class InThisProcess(InProcess):
    """In the place of a pool of workers, each of which would import torch; tests/batch has real ones."""

    def __init__(self, workers: int | None, scheduler: str | None) -> None:
        self.workers = 1


class Shell:
    """Runs blocks of commands in the reader's folder."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def __call__(self, example: Example) -> None:
        for line in example.parsed.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                self._run(line, words)

    def _run(self, line: str, words: list[str]) -> None:
        if words[0] == "export":
            self._patch.setenv(*words[1].split("=", 1))
        elif words[0] == "cd":
            self._patch.chdir(words[1])
        elif words[0] == PROGRAM:
            # in this process: it is quicker, and the stand-ins for official models are here
            given = _expanded(words[1:])
            assert run(given) == 0, line
        elif words[0] == "make":  # what a verb does is run by whoever calls it; that it exists is checked
            subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        else:
            path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
            subprocess.run(
                ["sh", "-e", "-c", line], check=True, env={**os.environ, "PATH": path}, timeout=120
            )


def _expanded(words: list[str]) -> list[str]:
    """Fill in patterns as a shell does."""
    found: list[str] = []
    for word in words:
        matches = sorted(str(path) for path in Path().glob(word)) if "*" in word else []
        found += matches or [word]
    return found


@pytest.fixture
def page(
    request: pytest.FixtureRequest,
    shelf: Callable[[str], Path],
    official_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Document]:
    """A page, read in a folder that holds the files which it says it begins with."""
    text = (ROOT / request.param).read_text("utf-8")
    for name in " ".join(FILES.findall(text)).split():
        source, target = shelf(name), tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAPARI_SAMEXP_HOME", str(tmp_path / ".home"))
    monkeypatch.setattr("napari_samexp.batch.pool.DaskPool", InThisProcess)
    parsers = [
        SkipParser(),
        PythonCodeBlockParser(),
        CodeBlockParser("sh", Shell(monkeypatch)),
    ]
    return Sybil(parsers=parsers, path=str(ROOT)).parse(ROOT / request.param)


@pytest.mark.parametrize("page", PAGES, indirect=True)
def test_what_a_page_says_runs(page: Document) -> None:
    left_out = []
    for example in page.examples():
        try:
            example.evaluate()
        except SkipTest as mark:
            left_out.append(str(mark))
    name = Path(page.path).relative_to(ROOT).as_posix()
    assert sorted(left_out) == sorted(MARKED.get(name, []))


@pytest.mark.parametrize("name", PAGES)
def test_no_block_goes_unseen(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    languages = FENCE.findall(text)[::2]
    unknown = set(languages) - NOT_RUN - {"python", "sh"}
    assert not unknown, f"{name} has blocks of {unknown or 'no language'}"
    for block in re.findall(r"^[ \t]*```(?:text|json)\n(.*?)```", text, re.DOTALL | re.MULTILINE):
        assert not COMMAND.search(block), f"{name} has a command in a block that is not run:\n{block}"


def test_marks_are_few_and_known() -> None:
    found = {name: SKIP.findall((ROOT / name).read_text("utf-8")) for name in PAGES}
    assert {name: sorted(marks) for name, marks in found.items() if marks} == {
        name: sorted(marks) for name, marks in MARKED.items()
    }
    assert sum(map(len, MARKED.values())) <= 10


def test_a_broken_block_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "page.md"
    for block in ("python\nassert 1 == 2", "sh\nnapari-samexp info no-such-model", "sh\nfalse"):
        path.write_text(f"# Title\n\n```{block}\n```\n")
        parsers = [PythonCodeBlockParser(), CodeBlockParser("sh", Shell(monkeypatch))]
        (example,) = Sybil(parsers=parsers, path=str(tmp_path)).parse(path).examples()
        with pytest.raises((AssertionError, subprocess.CalledProcessError)):
            example.evaluate()
