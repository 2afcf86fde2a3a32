"""A folder of tiny files for every command, and a shell in it."""

import pytest
from safetensors.torch import save_file

from napari_samexp.cli import run
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.render.overlay import write_png
from napari_samexp.sam.build import new_model
from napari_samexp.sam.variants import Sam1Variant
from napari_samexp.sam.weights.loading import metadata_for
from tests.tiny_files import FRAMES, disc_frames, write_tiny

TINY_SAM1 = Sam1Variant("tiny-sam1", 1, 16, 2, (0,), 64, 4, 32, 32, 16)


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """A folder with weights, a clip, an image and a prior, never to be changed."""
    folder = tmp_path_factory.mktemp("originals")
    write_tiny(folder / "tiny.safetensors", 3)
    write_tiny(folder / "other.safetensors", 4)
    write_tiny(folder / "blind.safetensors", 3, presence=-5.0)
    save_file(new_model(TINY_SAM1).state_dict(), folder / "sam1.safetensors", metadata_for(TINY_SAM1))
    frames = disc_frames(FRAMES)
    write_mp4(folder / "clip.mp4", frames, 10, quality=12)
    write_mp4(folder / "clip2.mp4", frames[::-1], 10, quality=12)
    write_png(folder / "cat.png", frames[0])
    recorded = ["record", folder / "cat.png", "--model", folder / "tiny.safetensors", "--point", "15,24"]
    assert run([*map(str, recorded), "--out", str(folder / "prior.safetensors"), "--name", "cat"]) == 0
    return folder


@pytest.fixture
def place(tmp_path, originals, monkeypatch):
    """A folder of one's own with the originals, as the working folder."""
    for file in originals.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAPARI_SAMEXP_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def shell(place, capsys):
    """Run a command line and return its status, standard output and standard error."""

    def call(line):
        status = run(line.split())
        out, err = capsys.readouterr()
        return status, out, err

    capsys.readouterr()
    return call
