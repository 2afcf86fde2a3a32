"""Make EdgeTAM's golden files in tests/data/golden by running its reference code.

    PYTHONPATH=EDGETAM:src python -m tests.data.make_edgetam STATE [TARGET]

EDGETAM is a checkout of facebookresearch/EdgeTAM, and the Python that runs this has what it imports (timm 1.0.15,
hydra-core, tqdm, pillow). STATE is a safetensors file of random weights in reduced sizes, with the whole hydra
configuration in its metadata. To make the file small the trunk is narrowed to its first channels and blocks and all
weights are rounded to bfloat16; the reference computes in float32 with what they are then. The frames of the runs are those of SAM 2.1's files in TARGET.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from sam2 import sam2_video_predictor
from sam2.modeling import sam2_base
from sam2.modeling.backbones import timm
from torch import Tensor

from napari_samexp.sam import EdgeTamVariant, load_model
from napari_samexp.sam.weights.loading import build
from napari_samexp.types import Prompt
from tests.data.select_golden import select
from tests.parity.golden import edgetam_variant, load

FRAMES, SIDE = 19, 128
FRAMES_FROM = "sam2.1_e2e_long"
COMMIT = "facebookresearch/EdgeTAM@9cc44bfe9e16cc374242917b91283c718410ea87"
SHOWN = (
    1,
    7,
    8,
    17,
)  # frames whose features and mask choices are kept, as far as `select_golden` leaves them
NARROWED = {"embed_dim": [8, 16, 32, 64], "depth": [2, 1, 2, 1]}
CASES = {  # the memory attention's: frames of priors and of others, and the frame that looks at them
    "full7": ([0], range(1, 7), 7),
    "long_ptrs": ([0], range(1, 19), 19),
    "two_priors": ([0, 1], (), 2),
    "gap": ([0], (2, 5, 8), 9),
}
Tensors = dict[str, Tensor]


def reference(config: dict[str, Any], sizes: dict[str, Any], state: Tensors) -> Any:
    """Return the reference's video predictor in reduced sizes."""
    body = {"embed_dim": tuple(sizes["embed_dim"]), "depth": tuple(sizes["depth"]), "pretrained": False}
    timm.create_model = _changed(timm.create_model, body)
    # these two classes are built with numbers that no configuration reaches
    sam2_base.TwoWayTransformer = _changed(sam2_base.TwoWayTransformer, {"mlp_dim": sizes["mlp_dim"]})
    sam2_base.MaskDecoder = _changed(sam2_base.MaskDecoder, {"iou_head_hidden_dim": sizes["iou_hidden"]})
    # memories stay as they are: the predictor would round them to bfloat16
    sam2_video_predictor.torch = SimpleNamespace(**{**vars(torch), "bfloat16": torch.float32})
    model = instantiate(config, _recursive_=True).eval()
    model.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in state.items()})
    return model


def narrowed(state: Tensors, variant: EdgeTamVariant) -> Tensors:
    """Return of each tensor as much as a model of that variant has, in bfloat16."""
    shapes = {key: tensor.shape for key, tensor in build(variant).state_dict().items()}
    parts = {key: state[key][tuple(map(slice, shape))].clone() for key, shape in shapes.items()}
    return {key: t.bfloat16() if t.is_floating_point() else t for key, t in parts.items()}


def _changed(function: Callable[..., Any], changes: dict[str, Any]) -> Callable[..., Any]:
    return lambda *given, **named: function(*given, **{**named, **changes})


# ---- what the models are shown


def drawn(number: int) -> np.ndarray:
    """Return a picture of stripes, squares and a disc, (SIDE, SIDE, 3) uint8, which packs well."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE]
    layers = []
    for _ in range(3):
        a, b, c, d = (int(n) for n in random.integers(1, 9, 4))
        layers.append((16 * ((x // a + c * (y // b)) % 7) + 12 * ((x * d // 16 + y // 5) % 11)) % 256)
    picture = np.stack(layers, axis=2).astype(np.uint8)
    at_y, at_x, radius = (int(n) for n in random.integers((24, 24, 10), (104, 104, 30)))
    picture[(y - at_y) ** 2 + (x - at_x) ** 2 < radius**2] = random.integers(0, 256, 3)
    return picture


def normalised(picture: np.ndarray) -> Tensor:
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 64 - 2
    return pixels.contiguous()


# ---- parts


def image_encoder(model: Any) -> Tensors:
    out: Tensors = {}
    taps = {"stage0_block0": model.image_encoder.trunk.body.stages_0.blocks[0]}
    for case, picture in (("native", drawn(1)), ("other", drawn(10)[:96, :64])):
        pixels = out[f"{case}.input"] = normalised(picture)
        seen: Tensors = {}
        hooks = [
            tap.register_forward_hook(lambda *of, name=name, seen=seen: seen.__setitem__(name, of[2]))
            for name, tap in taps.items()
        ]
        for i, stage in enumerate(model.image_encoder.trunk(pixels)):
            if i >= 2:
                out[f"{case}.trunk_stage{i}"] = stage
        for hook in hooks:
            hook.remove()
        if case == "other":
            out |= {f"{case}.{name}": tensor for name, tensor in seen.items()}
        levels = model.forward_image(pixels)
        fine, middle, coarse = levels["backbone_fpn"]
        out[f"{case}.backbone_fpn2"] = coarse
        if case == "other":
            out |= {f"{case}.high_res_s0": fine, f"{case}.high_res_s1": middle}
    return out


def perceiver(model: Any, sizes: dict[str, Any]) -> Tensors:
    grid = sizes["image_size"] // 16
    memory = torch.randn(1, sizes["mem_dim"], grid, grid)
    place = model.memory_encoder.position_encoding(memory)
    packed, places = model.spatial_perceiver(memory, place)
    first = sizes["num_latents"]
    out = {"random.in.features": memory, "in.pos": place, "random.out_features": packed, "out_pos": places}
    out |= {"random.latents_1d": packed[:, :first], "random.latents_2d": packed[:, first:]}
    features = torch.randn(1, sizes["d_model"], grid, grid)
    logits = torch.from_numpy(drawn(4)[None, None, ..., 0].astype(np.float32) - 100) / 16
    out |= {"in.pix_feat": features, "in.mask_logits_high_res": logits}
    for case, score, clicked in (
        ("tracked_present", 1.0, False), ("tracked_absent", -3.0, False), ("from_points", 1.0, True),
    ):  # fmt: skip
        out[f"{case}.maskmem_features"] = model._encode_new_memory(
            [features.flatten(2).permute(2, 0, 1)], [(grid, grid)], logits, torch.tensor([[score]]), clicked
        )[0]
    return out


def memory_attention(model: Any, sizes: dict[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    grid, dim = sizes["image_size"] // 16, sizes["d_model"]
    tokens = sizes["num_latents"] + sizes["num_latents_2d"]
    features = torch.randn(grid * grid, 1, dim)
    place = model.image_encoder.neck.position_encoding(features.permute(1, 2, 0).unflatten(2, (grid, grid)))
    place = place.flatten(2).permute(2, 0, 1)
    bank, pointers = torch.randn(FRAMES + 1, tokens, sizes["mem_dim"]), torch.randn(FRAMES + 1, dim)
    memory_place = model.spatial_perceiver(
        torch.zeros(1, sizes["mem_dim"], grid, grid), torch.zeros(1, sizes["mem_dim"], grid, grid)
    )[1]
    entries = [
        {
            "maskmem_features": bank[[i]],
            "maskmem_pos_enc": [memory_place],
            "obj_ptr": pointers[[i]],
        }
        for i in range(len(bank))
    ]
    out = {"in.current_vision_feat": features, "in.bank_features": bank, "in.bank_obj_ptrs": pointers}
    out["in.maskmem_pos_enc"] = memory_place
    out["init_frame.output"] = (features + model.no_mem_embed).permute(1, 2, 0).unflatten(2, (grid, grid))
    for case, (priors, others, now) in CASES.items():
        known = {
            "cond_frame_outputs": {i: entries[i] for i in priors},
            "non_cond_frame_outputs": {i: entries[i] for i in others},
        }
        out[f"{case}.output"] = model._prepare_memory_conditioned_features(
            now, False, [features], [place], [(grid, grid)], known, 64
        )
    return out, {
        case: {
            "frame_idx": now,
            "cond": {str(i): i for i in priors},
            "non_cond": {str(i): i for i in others},
            "num_frames": 64,
            "reverse": False,
        }
        for case, (priors, others, now) in CASES.items()
    }


# ---- runs


def run(model: Any, frames: np.ndarray, prompts: list[Prompt], last: int) -> Tensors:
    """Track frames up to `last` from prompts on the first ones."""
    out: Tensors = {}
    heads = _watched(model, "_forward_sam_heads")
    recalls = _watched(model, "_prepare_memory_conditioned_features")
    with tempfile.TemporaryDirectory() as folder:
        for i, frame in enumerate(frames):
            with (Path(folder) / f"{i:05d}.jpg").open("wb") as file:
                Image.fromarray(frame).save(file, "PNG")  # without loss, whatever the name says
        state = model.init_state(folder)
    state["num_frames"] = 64
    for i, prompt in enumerate(prompts):
        model.add_new_points_or_box(state, i, 1, points=prompt.points_xy, labels=prompt.labels)
        of = f"prompt{i}."
        out |= {
            f"{of}in.frame": torch.tensor(i),
            f"{of}in.points": torch.from_numpy(prompt.points_xy.astype(np.float32)),
            f"{of}in.labels": torch.from_numpy(prompt.labels.astype(np.int32)),
            **{f"{of}{name}": tensor for name, tensor in _heads(heads[-1]).items()},
        }
    list(model.propagate_in_video(state, start_frame_idx=0, max_frame_num_to_track=last))
    tracked, first = range(len(prompts), last + 1), len(heads) - (last + 1 - len(prompts))
    for i, said, recalled in zip(tracked, heads[first:], recalls[-len(tracked) :], strict=True):
        kept = _heads(said)
        if i not in SHOWN:
            del kept["low_res_multimasks"]
        else:
            kept["pix_feat_with_mem"] = recalled[0]
        out |= {f"frame{i:02d}.{name}": tensor for name, tensor in kept.items()}
    results = state["output_dict"]
    for i, result in {**results["cond_frame_outputs"], **results["non_cond_frame_outputs"]}.items():
        out[f"frame{i:02d}.maskmem_features"] = result["maskmem_features"][0]
        out["maskmem_pos_enc"] = result["maskmem_pos_enc"][0][0]
    return out


def _watched(model: Any, name: str) -> list[Any]:
    seen: list[Any] = []
    function = getattr(type(model), name)

    def call(*given: Any, **named: Any) -> Any:
        seen.append(function(model, *given, **named))
        return seen[-1]

    setattr(model, name, call)
    return seen


def _heads(said: Any) -> Tensors:
    choices, _, ious, chosen, _, pointer, score = said
    named = {"low_res_multimasks": choices, "ious": ious, "pred_masks": chosen[0], "obj_ptr": pointer}
    return {name: tensor[0] for name, tensor in (named | {"object_score_logits": score}).items()}


def clear_prompt(ours: Any, frame: np.ndarray, count: int) -> Prompt:
    """Return clicks whose mask keeps clear of 0, where it would be cut one way or the other by chance."""
    features, random = ours.encode(frame), np.random.default_rng(count)
    best, chosen = 0.0, None
    for _ in range(400):
        points = random.integers(0, SIDE, (count, 2)).astype(np.float32)
        prompt = Prompt(points, np.array([1, *[0] * (count - 1)]))
        prediction = ours.segment(features, prompt)
        logits = prediction.image_logits()
        clear = float(np.abs(logits).min() / np.abs(logits).max())
        if prediction.presence > 0.02 and 0.02 < (logits > 0).mean() < 0.98 and clear > best:
            best, chosen = clear, prompt
    assert chosen is not None
    sys.stdout.write(f"{count} clicks: smallest logit {best:.1e} of the largest\n")
    return chosen


def main(state_path: Path, target: Path) -> None:
    """Write the files of all parts and runs."""
    torch.set_num_threads(1)
    torch.manual_seed(7)
    with safe_open(state_path, "pt") as file:
        given = dict(file.metadata())
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no iterator
    sizes, config = json.loads(given["config"]) | NARROWED, json.loads(given["full_model_config"])
    config["image_encoder"]["neck"]["backbone_channel_list"] = sizes["embed_dim"][::-1]
    variant = edgetam_variant(sizes)
    state = narrowed(state, variant)
    about = {"config": json.dumps(sizes), "reference": COMMIT, "timm": "1.0.15", "note": "float32 memories"}
    save_file(state, target / "edgetam_state.safetensors", about)
    ours = load_model(target / "edgetam_state.safetensors", device="cpu", variant=variant)
    model = reference(config, sizes, state)
    frames = load(target, FRAMES_FROM)["frames_resized_u8"].numpy()
    prompts = [clear_prompt(ours, frames[0], 1), clear_prompt(ours, frames[1], 2)]
    with torch.inference_mode():
        attention, cases = memory_attention(model, sizes)
        files = {
            "image_encoder": (image_encoder(model), {}),
            "perceiver": (perceiver(model, sizes), {}),
            "memory_attention": (attention, {"cases": cases}),
            "e2e_long": (
                run(model, frames, prompts[:1], FRAMES - 1),
                {"tracked": list(range(1, FRAMES)), "frame_hw": [SIDE, SIDE]},
            ),
            "e2e_two_priors": (
                run(model, frames, prompts, 8),
                {"tracked": list(range(2, 9)), "frame_hw": [SIDE, SIDE]},
            ),
        }
    for part, (tensors, more) in files.items():
        path = target / f"edgetam_{part}.safetensors"
        contiguous = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, path, about | {key: json.dumps(value) for key, value in more.items()})
        select(path, path)


if __name__ == "__main__":
    default = Path(__file__).resolve().parent / "golden"
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else default)
