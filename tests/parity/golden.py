"""Golden files: reading them, the models they were made with, and looking into a model while it works."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from napari_samexp.sam import EdgeTamVariant, Sam1, Sam1Variant, Sam2, Sam2Variant, Variant, load_model
from napari_samexp.types import Prompt

# a family and how its files begin
FAMILIES = {"SAM 1": "sam_v1", "SAM 2": "sam2", "SAM 2.1": "sam2.1", "EdgeTAM": "edgetam"}
PACKED = ".xz"  # a tensor whose bytes are packed; the metadata "packed" holds its type and shape


@dataclass(frozen=True)
class Golden:
    """One golden file: its tensors by name, and the JSON values of its metadata."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def get(self, name: str) -> Tensor | None:
        return self.tensors.get(name)

    def json(self, key: str) -> Any:
        return json.loads(self.metadata[key])


def load(folder: Path, stem: str) -> Golden:
    """Read a golden file; packed tensors get their own names back."""
    with safe_open(folder / f"{stem}.safetensors", "pt") as file:
        metadata = dict(file.metadata())
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no iterator
    shapes = json.loads(metadata.get("packed", "{}"))
    tensors = {
        name.removesuffix(PACKED): _unpacked(tensor, *shapes[name]) if name in shapes else tensor
        for name, tensor in stored.items()
    }
    return Golden(tensors, metadata)


def _unpacked(packed: Tensor, kind: str, shape: list[int]) -> Tensor:
    content = bytearray(lzma.decompress(packed.numpy().tobytes()))
    return torch.frombuffer(content, dtype=getattr(torch, kind)).reshape(shape)


def load_reference(folder: Path, family: str) -> Sam1 | Sam2:
    """Return a model with the reference's random weights, through the door that users take."""
    stem = f"{FAMILIES[family]}_state"
    return load_model(
        folder / f"{stem}.safetensors", device="cpu", variant=_variant(family, load(folder, stem))
    )


def _variant(family: str, golden: Golden) -> Variant:
    sizes = golden.json("config")
    if family == "EdgeTAM":
        return edgetam_variant(sizes)
    same = {key: sizes[key] for key in ("embed_dim", "num_heads", "mlp_dim", "iou_hidden")}
    if family == "SAM 1":
        return Sam1Variant(
            name="golden SAM 1",
            depth=sizes["depth"],
            global_blocks=tuple(sizes["global_attn_indexes"]),
            image_size=sizes["img_size"],
            window_size=sizes["window_size"],
            d_model=sizes["out_chans"],
            **same,
        )
    tuples = {key: tuple(sizes[key]) for key in ("stages", "window_spec")}
    numbers = {key: sizes[key] for key in ("image_size", "d_model", "mem_dim", "mem_ff", "mem_layers")}
    return Sam2Variant(
        name=f"golden {family}",
        version=sizes["version"],
        global_blocks=tuple(sizes["global_att_blocks"]),
        background_hw=tuple(sizes["bkg"]),
        **same,
        **tuples,
        **numbers,
    )


def edgetam_variant(sizes: dict[str, Any]) -> EdgeTamVariant:
    """Return the variant of a golden file's sizes."""
    given = {key: value for key, value in sizes.items() if key not in ("embed_dim", "depth")}
    return EdgeTamVariant(
        name="golden EdgeTAM", embed_dim=sizes["embed_dim"][0], stages=tuple(sizes["depth"]), **given
    )


def prompt_of(golden: Golden, of: str) -> tuple[Prompt, np.ndarray | None]:
    """Return a golden file's prompt and its mask logits, if any."""
    given = {
        name: golden.get(f"{of}in.{name}")
        for name in ("points", "point_coords", "labels", "point_labels", "box")
    }
    points = given["points"] if given["points"] is not None else given["point_coords"]
    labels = given["labels"] if given["labels"] is not None else given["point_labels"]
    box = None if given["box"] is None else given["box"].numpy()
    prompt = Prompt(box_xyxy=box) if points is None else Prompt(points.numpy(), labels.numpy(), box)
    mask = golden.get(f"{of}in.mask_input")
    return prompt, None if mask is None else mask[0].numpy()


# ---- looking into a model, without changing it


@contextmanager
def outputs_of(modules: dict[str, torch.nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Give what the modules return while the block runs."""
    seen: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _module, _given, out, name=name: seen.__setitem__(name, out))
        for name, module in modules.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def inputs_of(modules: dict[str, torch.nn.Module]) -> Iterator[dict[str, Any]]:
    """Give what the modules are called with while the block runs."""
    seen: dict[str, Any] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _module, given, name=name: seen.__setitem__(name, given))
        for name, module in modules.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def results_of(model: Sam2, *methods: str) -> Iterator[dict[str, Any]]:
    """Give what the model's methods return last while the block runs."""
    seen: dict[str, Any] = {}

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            seen[name] = method(*args, **named)
            return seen[name]

        return call

    for name in methods:
        setattr(model, name, watched(name, getattr(model, name)))
    try:
        yield seen
    finally:
        for name in methods:
            delattr(model, name)


@contextmanager
def last_score_bias(model: Sam2) -> Iterator[Tensor]:
    """Give the last bias of the presence head, to be changed within the block."""
    bias = model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias
    before = bias.clone()
    try:
        yield bias
    finally:
        bias.copy_(before)
