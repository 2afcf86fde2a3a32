"""Files for commands and batches that take seconds: weights of a tiny SAM 2, frames of a disc, command lines."""

import os
import sys

import numpy as np
import torch
from safetensors.torch import save_file

from napari_samexp.io.labels import LabelStore
from napari_samexp.sam.build import new_model
from napari_samexp.sam.variants import Sam2Variant
from napari_samexp.sam.weights.loading import metadata_for

FRAMES, HEIGHT, WIDTH = 10, 48, 64
TINY = Sam2Variant(
    name="tiny-random", version="2.1", embed_dim=8, num_heads=1, stages=(1, 2, 2, 1), global_blocks=(3,),
    window_spec=(8, 4, 4, 2), image_size=64, d_model=32, mem_dim=8, mem_ff=32, mem_layers=1, mlp_dim=32,
    iou_hidden=16,
)  # fmt: skip
RECORD = "record cat.png --model tiny.safetensors --out new.safetensors"
TRACK = "track clip.mp4 --prior prior.safetensors --model tiny.safetensors --out labels.zarr"
COMMAND = [sys.executable, "-m", "napari_samexp"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


def write_tiny(path, seed, presence=5.0):
    """Write random weights whose presence scores are near a value."""
    torch.manual_seed(seed)
    model = new_model(TINY)
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(presence)
    save_file(model.state_dict(), path, metadata_for(TINY))


def disc_frames(count, seed=3):
    """Return frames of a disc that crosses noise, (count, 48, 64, 3) uint8."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = np.random.default_rng(seed).integers(0, 90, (count, HEIGHT, WIDTH, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[(y - 24) ** 2 + (x - 15 - 3 * (i % 12)) ** 2 < 81] = (230, 140, 40)
    return frames


def labels_of(path):
    """Return a store's labels, (T, Y, X), and which frames are done."""
    with LabelStore.open(path, mode="r") as store:
        return np.stack([store.frame(t) for t in range(store.shape[0])]), store.done


def content(folder):
    """Return the bytes of all files below a folder, by path."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
