"""Files for batches of seconds: weights of tiny models, clips, and a prior."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_samexp.batch.jobs import Job
from napari_samexp.io.video import read_frame
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.render.overlay import write_png
from napari_samexp.sam.models import Sam2
from napari_samexp.sam.variants import Sam2Variant
from napari_samexp.sam.weights.loading import load_model, metadata_for
from napari_samexp.tracking import PriorMemory, record
from napari_samexp.types import Prompt

HEIGHT, WIDTH = 48, 64
TINY = Sam2Variant(
    name="tiny-random", version="2.1", embed_dim=8, num_heads=1, stages=(1, 2, 2, 1), global_blocks=(3,),
    window_spec=(8, 4, 4, 2), image_size=64, d_model=32, mem_dim=8, mem_ff=32, mem_layers=1, mlp_dim=32,
    iou_hidden=16,
)  # fmt: skip


def _write_tiny(path, seed):
    torch.manual_seed(seed)
    model = Sam2(TINY)
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    save_file(model.state_dict(), path, metadata_for(TINY))


def frames_of(count, seed=3):
    """Return frames of a disc that crosses noise."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(seed).integers(0, 90, (count, HEIGHT, WIDTH, 3), np.uint8)
    for i, frame in enumerate(noise):
        frame[(y - 24) ** 2 + (x - 15 - 3 * (i % 12)) ** 2 < 81] = (230, 140, 40)
    return noise


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """A folder with weights, clips, an image and a prior of two recordings, never to be changed."""
    folder = tmp_path_factory.mktemp("originals")
    _write_tiny(folder / "tiny.safetensors", 3)
    _write_tiny(folder / "other.safetensors", 4)
    write_mp4(folder / "a.mp4", frames_of(8), 10, quality=12)
    write_mp4(folder / "b.mp4", frames_of(8, 9)[::-1], 10, quality=12)
    write_png(folder / "cat.png", frames_of(1)[0])
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
