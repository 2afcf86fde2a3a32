"""EdgeTAM's golden tensors once more, by our code; see `reproduce`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from napari_samexp.sam import EdgeTam
from napari_samexp.sam.memory import RotaryAttention
from napari_samexp.sam.perceiver import split_windows
from napari_samexp.sam.position_encoding import axial_rope, rotate
from tests.parity.golden import Golden, inputs_of, outputs_of
from tests.parity.reproduce import Named, banked_as_meta, image_predict, mask_prompt, sine

CPU = torch.device("cpu")


def image_encoder(model: EdgeTam, golden: Golden) -> Named:
    encoder, body = model.image_encoder, model.image_encoder.trunk.body
    taps = {
        "stem": body.stem,
        "stage0_block0_token_mixer": body.stages_0.blocks[0].token_mixer,
        "stage0_block0_se": body.stages_0.blocks[0].se,
        "stage0_block0": body.stages_0.blocks[0],
        "stage1_downsample": body.stages_1.downsample,
        "neck_level3_scalped": encoder.neck.convs[0],
    }
    for case in ("native", "other"):
        pixels = golden[f"{case}.input"]
        with outputs_of(taps) as seen:
            levels = encoder(pixels)
        yield from ((f"{case}.{name}", tensor) for name, tensor in seen.items())
        yield from ((f"{case}.backbone_fpn{i}", level) for i, level in enumerate(levels))
        for i, stage in enumerate(encoder.trunk(pixels)):
            yield f"{case}.trunk_stage{i}", stage.permute(0, 3, 1, 2)
        embedding, high_res_features = model.image_features(pixels)
        yield f"{case}.high_res_s0", high_res_features[0]
        yield f"{case}.high_res_s1", high_res_features[1]
        yield f"{case}.vision_pos_enc2", sine(embedding.shape)


def perceiver(model: EdgeTam, golden: Golden) -> Named:
    packer = model.spatial_perceiver
    yield "in.pos", sine(golden["in.pos"].shape)
    yield "out_pos", packer.encoding()[None]
    yield "pos_2d", packer.encoding()[None, model.variant.num_latents :]
    yield from ((f"random.{name}", tensor) for name, tensor in _packed(model, golden["random.in.features"]))
    features, logits = golden["in.pix_feat"], golden["in.mask_logits_high_res"]
    for case, presence, binary in (
        ("tracked_present", 1.0, False),
        ("tracked_absent", -3.0, False),
        ("from_points", 1.0, True),
    ):
        modules = {"memory": model.memory_encoder, "mask": model.memory_encoder.mask_downsampler}
        with outputs_of(modules) as seen:
            memory = model.encode_memory(features, logits, torch.tensor([presence]), binary=binary)
        yield f"{case}.maskmem_features", _tokens(memory)
        yield f"{case}.memory_before_perceiver", seen["memory"]
        if case == "tracked_present":
            yield "mask_downsampler_out.tracked", seen["mask"]
            packed = _packed(model, seen["memory"])
            yield from ((f"{case}.{name}", tensor) for name, tensor in packed)
    if golden.get("mask_prompt.in.mask01") is None:
        return
    for name, tensor in mask_prompt(model, golden):
        yield f"mask_prompt.{name}", _tokens(tensor) if name == "maskmem_features" else tensor


def _tokens(memory: Tensor) -> Tensor:
    """(N, mem_dim, 1, L) as the golden files have it, (N, L, mem_dim)."""
    return memory[:, :, 0].transpose(1, 2)


def _packed(model: EdgeTam, memory: Tensor) -> Named:
    packer, first, seen = model.spatial_perceiver, model.variant.num_latents, []
    hooks = [layer.register_forward_hook(lambda *of: seen.append(of[2])) for layer in packer.layers]
    packed = packer(memory)
    for hook in hooks:
        hook.remove()
    depth = len(packer.layers)
    for i in range(depth):  # all layers for the whole frame, then all for the windows
        yield f"layer{i}.latents_1d", seen[i]
        yield f"layer{i}.latents_2d_windows", seen[depth + i]
    yield "windows_2d", split_windows(memory, packer.windows)
    yield "latents_1d", packed[:, :first]
    yield "latents_2d", packed[:, first:]
    yield "out_features", packed


def memory_attention(model: EdgeTam, golden: Golden) -> Named:
    features = golden["in.current_vision_feat"]
    grid = tuple(golden["init_frame.output"].shape[2:])
    features = features.permute(1, 2, 0).unflatten(2, grid)
    yield "in.current_vision_pos_embed", sine(features.shape).flatten(2).permute(2, 0, 1)
    yield "in.maskmem_pos_enc", model.spatial_perceiver.encoding()[None]
    yield "init_frame.output", features + model.no_mem_embed.transpose(1, 2)[..., None]
    yield from _ropes(model, grid)
    attention = model.memory_attention
    cross = attention.layers[0].cross_attn_image
    for case, spec in golden.json("cases").items():
        banked, *rest = banked_as_meta(golden, spec)
        spatial = [part.transpose(1, 2)[:, :, None] for part in banked]
        layers = {f"{case}.layer{i}_out": layer for i, layer in enumerate(attention.layers)}
        parts = {"q": cross.q_proj, f"{case}.layer0_cross.out": cross.out_proj}
        with outputs_of(layers | parts) as seen, inputs_of({case: attention}) as given:
            yield f"{case}.output", model.recall(features, spatial, *rest)
        queries = seen.pop("q")
        yield from seen.items()
        _, memory, places, grids, *_ = given[case]
        yield f"{case}.memory", memory.transpose(0, 1)
        yield f"{case}.memory_pos", places.transpose(0, 1)
        yield f"{case}.num_spatial_mem", torch.tensor(len(grids))
        tokens = sum(part.shape[3] for part in spatial)
        yield f"{case}.num_obj_ptr_tokens", torch.tensor(memory.shape[1] - tokens)
        inner = _cross(cross, queries, memory + places, memory, grids)
        yield from ((f"{case}.layer0_cross.{name}", tensor) for name, tensor in inner)


def _ropes(model: EdgeTam, grid: tuple[int, int]) -> Named:
    windows = model.variant.windows
    cross = model.memory_attention.layers[0].cross_attn_image
    tables = {
        "q": cross.frame_rope(grid, CPU),
        "k": axial_rope(model.variant.d_model, (windows, windows), CPU),
        "self": axial_rope(model.variant.d_model, grid, CPU),
    }
    for name, (cos, sin) in tables.items():
        yield f"rope.{name}_table_cos", cos
        yield f"rope.{name}_table_sin", sin


def _cross(cross: RotaryAttention, q: Tensor, keys: Tensor, memory: Tensor, grids: list[Any]) -> Named:
    """Queries, keys and values of a cross attention on its native grid."""
    yield "q_before_rope", q
    yield "q_after_rope", rotate(q, cross.frame_rope((cross.native, cross.native), CPU))
    yield "k_before_rope", cross.k_proj(keys)
    yield "k_after_rope", cross.rotated_keys(keys, grids)
    yield "v", cross.v_proj(memory)


EDGETAM: dict[str, Callable[..., Named]] = {
    "image_encoder": image_encoder,
    "perceiver": perceiver,
    "memory_attention": memory_attention,
    "image_predict": image_predict,
}
