"""Files for batches of seconds: weights of tiny models, clips, and a prior."""

import pytest

from napari_samexp.batch.jobs import Job
from napari_samexp.io.video import read_frame
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.render.overlay import write_png
from napari_samexp.sam.weights.loading import load_model
from napari_samexp.tracking import PriorMemory, record
from napari_samexp.types import Prompt
from tests.tiny_files import disc_frames, write_tiny


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """A folder with weights, clips, an image and a prior of two recordings, never to be changed."""
    folder = tmp_path_factory.mktemp("originals")
    write_tiny(folder / "tiny.safetensors", 3)
    write_tiny(folder / "other.safetensors", 4)
    write_mp4(folder / "a.mp4", disc_frames(8), 10, quality=12)
    write_mp4(folder / "b.mp4", disc_frames(8, 9)[::-1], 10, quality=12)
    write_png(folder / "cat.png", disc_frames(1)[0])
    model, image = load_model(folder / "tiny.safetensors", device="cpu"), read_frame(folder / "cat.png")
    features, prior = model.encode(image), PriorMemory()
    for point in ((15, 24), (40, 20)):
        prompt = Prompt.from_lists([point])
        made = record(model, image, features, prompt, model.segment(features, prompt), image_name="cat.png")
        prior = prior.with_recording(*made)
    prior.save(folder / "cat.safetensors")
    prior.without(0).save(folder / "dog.safetensors")
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
def job(place):
    """A job of the prior on the first clip."""
    return Job(
        "cat/a", str(place / "cat.safetensors"), str(place / "a.mp4"), str(place / "out" / "a.zarr"),
        str(place / "tiny.safetensors"), device="cpu", dtype="float32",
    )  # fmt: skip
