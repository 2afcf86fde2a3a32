"""The site: it builds without a warning, its anchors stay, and its tables agree with the program."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from typer.main import get_command

from napari_samexp._qt.shortcuts import ENCODINGS, TRACKING, shown
from napari_samexp.cli import app
from napari_samexp.sam.weights.cache import locate
from napari_samexp.sam.weights.catalogue import OFFICIAL, STARTER
from napari_samexp.tracking.settings import TrackSettings
from tests import ROOT

SCRIPTS = ("benchmarks", "training", "tests/parity", "tests/fuzz", "tests/kill")
# the program's own sentences and other people's pages link to these: rename none, only add
ANCHORS = {
    "torch-takes-gigabytes", "no-qt-binding", "pyside6-on-python-311", "windows",
    "the-window-does-not-open-on-linux", "the-plugin-is-not-in-the-menu", "no-gpu", "the-gpu-is-not-used",
    "offline-machines", "proxies", "a-download-was-damaged", "a-weights-file-is-refused",
    "sam-1-cannot-track", "out-of-memory", "shared-memory-is-full", "the-disk-is-full",
    "a-video-cannot-be-read", "the-size-changes-within-a-video", "an-image-cannot-be-read",
    "a-image-cannot-be-read", "scrubbing-is-slow", "the-labels-are-in-use", "the-labels-are-of-another-run",
    "labels-were-painted-by-hand", "the-prior-is-of-another-model", "the-wrong-thing-is-found",
    "nothing-is-found", "a-click-does-nothing", "the-models-process-ended", "a-fault-of-the-program",
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; strict, so that a dead link or an unreadable docstring fails."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def test_the_anchors_of_troubleshooting_stay(site: Path) -> None:
    page = (site / "troubleshooting" / "index.html").read_text("utf-8")
    found = set(re.findall(r'<(?:h3|a) id="([^"]+)"', page))
    assert found >= ANCHORS, ANCHORS - found


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', text)
        assert [url for url in loaded if "canonical" not in url] == [], page


def test_how_to_report_a_problem_is_on_the_site(site: Path) -> None:
    page = (site / "security" / "index.html").read_text("utf-8")
    assert "Report a vulnerability" in page


def test_every_command_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "cli" / "index.html").read_text("utf-8")
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands) >= 9
    for name, command in commands.items():
        assert f'id="napari-samexp-{name}"' in page
        for option in command.params:
            for flag in getattr(option, "opts", ()):
                assert flag in page, (name, flag)


def test_the_reference_reads_as_a_page(site: Path) -> None:
    page = (site / "reference" / "cli" / "index.html").read_text("utf-8")
    assert "\b" not in page  # a sign for terminals
    example = re.search(r"<code>[^`]*napari-samexp record cat.jpg.*?</code>", page, re.DOTALL)
    assert example is not None and example[0].count("\n") >= 2  # each command in a line of its own
    assert "lambda" not in (site / "reference" / "python" / "index.html").read_text("utf-8")


def test_names_in_tables_stay_whole(site: Path) -> None:
    assert "stylesheets/tables.css" in (site / "models" / "index.html").read_text("utf-8")
    assert (site / "stylesheets" / "tables.css").is_file()


def test_verbs_of_make_are_all_in_the_table() -> None:
    verbs = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    told = set(re.findall(r"`make ([a-z]+)`", (ROOT / "CONTRIBUTING.md").read_text("utf-8")))
    assert verbs - told <= {"help", "unit", "clean"}  # parts of others, or said by themselves


def test_every_setting_and_key_is_in_the_reference(site: Path) -> None:
    page = re.sub(r"<[^>]+>", "|", (site / "reference" / "napari" / "index.html").read_text("utf-8"))
    for knob in fields(TrackSettings):
        assert f"|{knob.name}|" in page and knob.metadata["help"][:30] in page.replace("&#x27;", "'")
    assert re.search(r"\|prior_distance\|\s*\|+\s*\|1\|", page)
    for shortcut in (*TRACKING.values(), *ENCODINGS.values()):
        assert f"|{shown(shortcut.keys)}|" in page, shortcut


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    import napari_samexp

    page = (site / "reference" / "python" / "index.html").read_text("utf-8")
    for name in napari_samexp.__all__:
        if name != "__version__":
            home = getattr(napari_samexp, name).__module__
            assert f'id="{home}.{name}"' in page, name


def test_the_table_of_models_is_right() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \|(.*)\|$", text, re.MULTILINE))
    starter = locate(STARTER)
    assert starter is not None
    sizes = {STARTER: starter.stat().st_size} | {name: entry.bytes for name, entry in OFFICIAL.items()}
    assert set(rows) == set(sizes)
    for name, size in sizes.items():
        assert f"| {size / 1e6:.0f} MB |" in rows[name], (name, size)
        licence = OFFICIAL[name].licence if name in OFFICIAL else "Apache-2.0"
        assert f"| {licence} |" in rows[name], name


def test_options_named_in_passing_exist() -> None:
    flag = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
    others = {"--shm-size", "--nthreads", "--no-dashboard", "--cpus-per-task", "--info"}  # other programs'
    known = {"--debug", "--version", "--help"} | others
    for script in (path for folder in SCRIPTS for path in (ROOT / folder).rglob("*.py")):
        known |= set(flag.findall(script.read_text("utf-8")))
    for command in get_command(app).commands.values():  # type: ignore[attr-defined]
        for option in command.params:
            known |= {*getattr(option, "opts", ()), *getattr(option, "secondary_opts", ())}
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        text = re.sub(r"^[ \t]*```.*?^[ \t]*```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        for span in re.findall(r"`([^`\n]+)`", text):
            unknown = set(flag.findall(span)) - known
            assert not unknown, f"{path.name} names {unknown} in `{span}`"


def test_verbs_of_make_that_are_named_exist() -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        named = set(re.findall(r"`make ([a-z]+)`", path.read_text("utf-8")))
        assert named <= verbs, f"{path.name} names {named - verbs}"
