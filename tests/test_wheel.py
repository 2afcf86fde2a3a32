"""What a stranger installs: the wheel's files, its metadata, and that it works from nothing but itself."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 12_000_000
QT_BINDINGS = {"pyqt5", "pyqt6", "pyside2", "pyside6"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout without asking an index for anything."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what an installer would put into site-packages."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_installed(installed: Path, script: str) -> str:
    """Run a script in a new process that finds the installed copy before any other."""
    begin = f"import sys; sys.path.insert(0, {str(installed)!r})\n"
    run = subprocess.run(
        [sys.executable, "-c", begin + script], capture_output=True, text=True, cwd=installed
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_the_wheel_has_every_file_of_the_package(names: set[str]) -> None:
    source = ROOT / "src" / "napari_samexp"
    files = {
        f"napari_samexp/{path.relative_to(source).as_posix()}"
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files <= names
    for name in ("napari.yaml", "icon.svg", "py.typed", "starter.safetensors", "samples/clip.mp4"):
        assert f"napari_samexp/{name}" in names


def test_the_wheel_has_the_pages_of_help(names: set[str]) -> None:
    from napari_samexp._qt.help_pages import ENCODINGS_TUTORIAL, TROUBLESHOOTING, TUTORIAL

    for page in (TUTORIAL, ENCODINGS_TUTORIAL, TROUBLESHOOTING):
        assert f"napari_samexp/help/{page}" in names


def test_the_wheel_has_nothing_else(names: set[str]) -> None:
    tops = {PurePosixPath(name).parts[0] for name in names}
    assert len(tops) == 2 and "napari_samexp" in tops
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith((".pyc", ".so", ".pt"))]
    parts = {part for name in names for part in PurePosixPath(name).parts}
    assert not [part for part in parts if part.startswith(("test", "conftest"))]


def test_the_wheel_is_small_and_for_every_machine(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_base_brings_no_qt_binding(metadata: Message) -> None:
    """Nor an extra of napari: whoever has a napari keeps it as it is."""
    base = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    base = [found for found in base if found.marker is None or found.marker.evaluate({"extra": ""})]
    assert "napari" in {found.name for found in base}
    for found in base:
        assert found.name.lower() not in QT_BINDINGS
        assert found.name != "napari" or not found.extras
        assert found.specifier, f"{found.name} has no lower bound"


def test_the_extra_all_brings_naparis_own_choice(metadata: Message) -> None:
    extra = [
        found
        for found in map(Requirement, metadata.get_all("Requires-Dist", []))
        if found.marker is not None and found.marker.evaluate({"extra": "all"})
    ]
    assert [(found.name, found.extras) for found in extra if found.marker] == [("napari", {"all"})]


def test_what_the_hub_shows(metadata: Message) -> None:
    assert metadata["Name"] == "napari-samexp"
    assert 20 < len(metadata["Summary"]) < 120
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Requires-Python"] == ">=3.11"
    assert Version(metadata["Version"]) >= Version("0.1.dev0")
    classifiers = metadata.get_all("Classifier", [])
    assert "Framework :: napari" in classifiers
    for version in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    # an SPDX expression and a licence classifier exclude each other (PEP 639)
    assert not [text for text in classifiers if text.startswith("License ::")]


def test_napari_finds_the_plugin_in_what_is_installed(installed: Path) -> None:
    script = """
from importlib.metadata import distribution
import warnings; warnings.simplefilter("ignore")
from npe2 import PluginManifest
found = distribution("napari-samexp")
assert str(found.locate_file("")).startswith(sys.path[0]), found.locate_file("")
with warnings.catch_warnings(record=True) as doubts:
    warnings.simplefilter("always")
    manifest = PluginManifest.from_distribution("napari-samexp")
    manifest.validate_imports()
assert not [doubt for doubt in doubts if "samexp" in str(doubt.message)], doubts
assert manifest.display_name and manifest.categories and manifest.icon
from importlib.resources import files
package, _, name = manifest.icon.partition(":")
assert files(package).joinpath(name).is_file()
print(*(widget.display_name for widget in manifest.contributions.widgets), sep="|")
"""
    shown = run_installed(installed, script).split("|")
    assert {"Prior tracking", "Position encodings"} <= set(shown)


def test_what_is_installed_finds_its_own_files(installed: Path) -> None:
    script = """
import napari_samexp
from napari_samexp import position_encoding
from napari_samexp.samples import load_sample
assert napari_samexp.__file__.startswith(sys.path[0])
print(load_sample().clip_path.is_file(), position_encoding("starter").values.ndim)
"""
    assert run_installed(installed, script) == "True 3"
