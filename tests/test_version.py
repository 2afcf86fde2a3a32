"""The version comes from git's tags, is there without them, and costs nothing at import."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import napari_samexp

ROOT = Path(__file__).resolve().parents[1]


def version_of(folder: Path) -> str:
    """Return the version that a build in a folder would have."""
    command = [sys.executable, "-W", "ignore", "-m", "hatchling", "version"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The least that can be built, under git."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    folder = tmp_path / "checkout"
    (folder / "src" / "napari_samexp").mkdir(parents=True)
    (folder / "src" / "napari_samexp" / "__init__.py").write_text("")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "First")
    return folder


def test_a_checkout_with_and_without_tags(checkout: Path) -> None:
    assert re.match(r"0\.1(\.0)?\.dev1\+g", version_of(checkout))  # by the age of setuptools-scm
    git(checkout, "tag", "v0.1.0")
    assert version_of(checkout) == "0.1.0"
    git(checkout, "commit", "--quiet", "--allow-empty", "-m", "Second")
    assert version_of(checkout).startswith("0.1.1.dev1+g")


def test_an_sdist_and_a_folder_without_git(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "tag", "v0.2.0")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=checkout, check=True, capture_output=True)
    with tarfile.open(tmp_path / "napari_samexp-0.2.0.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    assert version_of(tmp_path / "napari_samexp-0.2.0") == "0.2.0"
    (tmp_path / "napari_samexp-0.2.0" / "PKG-INFO").unlink()
    assert version_of(tmp_path / "napari_samexp-0.2.0") == "0.1.0.dev0"


def test_importing_the_package_asks_nobody() -> None:
    script = (
        "import sys, napari_samexp; before = set(sys.modules); napari_samexp.__version__; "
        "print('importlib.metadata' in before, 'subprocess' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); {script}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.split() == ["False", "False"]


def test_the_version_is_one() -> None:
    assert napari_samexp.__version__[0].isdigit()
    assert "__version__" in napari_samexp.__all__
