"""The golden tensors once more, by our code: each part of a model, and whole runs of the tracker.

The functions of parts take a model and a golden file, from which they use the inputs alone, and yield names
and tensors; also some that a selection of golden files may lack.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_samexp.sam import EdgeTam, ImageFeatures, MaskPrediction, Memory, Sam1, Sam2
from napari_samexp.sam.features import MEAN_255, STD_255, ImageTransform, prepare
from napari_samexp.sam.position_encoding import hiera_map, sine_map
from napari_samexp.sam.sam2_base import ABSENT
from napari_samexp.sam.variants import MAX_POINTERS, MAX_RECENT, PRIOR_SLOT
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, record
from napari_samexp.types import Prompt
from tests.parity.golden import Golden, inputs_of, last_score_bias, outputs_of, prompt_of, results_of

Named = Iterator[tuple[str, Tensor]]
CPU = torch.device("cpu")


# ---- SAM 1


def v1_image_encoder(model: Sam1, golden: Golden) -> Named:
    encoder = model.image_encoder
    parts = {"patch_embed": encoder.patch_embed} | {
        f"block_{i}": block for i, block in enumerate(encoder.blocks)
    }
    with outputs_of(parts) as seen:
        yield "output", encoder(golden["input"])
    yield from seen.items()


def v1_predict(model: Sam1, golden: Golden) -> Named:
    for j in (0, 1):
        yield from ((f"img{j}.{name}", tensor) for name, tensor in _v1_image(model, golden, f"img{j}."))


def _v1_image(model: Sam1, golden: Golden, of: str) -> Named:
    image = golden[f"{of}image_u8"].numpy()
    pixels, transform = prepare(image, model.variant, None, True)
    height, width = transform.content_hw
    shown = pixels[0, :, :height, :width].transpose(1, 2, 0) * np.float32(STD_255) + np.float32(MEAN_255)
    yield "resized_u8", torch.from_numpy(shown.round().astype(np.uint8))
    yield "model_input", torch.from_numpy(pixels)
    features = model.encode(image)
    yield "embedding", features.embedding
    for case in ("point1", "points3", "box", "boxpoint", "mask"):
        prompt, mask = prompt_of(golden, f"{of}{case}.")
        for many in (True, False):
            prediction = model.segment(features, prompt, mask_logits=mask, multimask=many)
            rows = slice(1, None) if many else slice(0, 1)
            kind = f"{case}.{'multi' if many else 'single'}"
            yield f"{kind}.low_res_logits", prediction.logits[rows]
            yield f"{kind}.iou", torch.from_numpy(prediction.iou[rows])
            yield f"{kind}.orig_res_logits", transform.to_image(prediction.logits[rows])


# ---- SAM 2 and 2.1, parts


def hiera_pos_embed(model: None, golden: Golden) -> Named:
    for name in golden.tensors:
        if match := re.fullmatch(r"(\w+)\.composed_(\d+)x(\d+)_bhwc", name):
            tables = golden[f"{match[1]}.pos_embed"], golden[f"{match[1]}.pos_embed_window"]
            yield name, hiera_map(*tables, (int(match[2]), int(match[3]))).permute(0, 2, 3, 1)


def image_encoder(model: Sam2, golden: Golden) -> Named:
    for case in ("native", "other"):
        pixels = golden[f"{case}.input"]
        trunk = model.image_encoder.trunk
        for i, stage in enumerate(trunk(pixels)):
            yield f"{case}.trunk_stage{i}", stage.permute(0, 3, 1, 2)
        for i, level in enumerate(model.image_encoder(pixels)):
            yield f"{case}.backbone_fpn{i}", level
        embedding, high_res_features = model.image_features(pixels)
        yield f"{case}.high_res_s0", high_res_features[0]
        yield f"{case}.high_res_s1", high_res_features[1]
        yield f"{case}.vision_pos_enc2", sine(embedding.shape)
        added = model.position_encoding((pixels.shape[2] // 4, pixels.shape[3] // 4))
        yield f"{case}.composed_pos_embed_bhwc", added.permute(1, 2, 0)[None]


PROMPT_CASES = ("point1", "points3", "box", "boxpoint", "mask", "none", "absent.point1")


def prompt_decoder(model: Sam2, golden: Golden) -> Named:
    encoder = model.sam_prompt_encoder
    grid = tuple(golden["dense_pe"].shape[2:])
    yield "dense_pe", encoder.grid(grid)
    with last_score_bias(model) as bias:
        for case in PROMPT_CASES:
            bias.copy_(
                golden["absent.obj_score_last_bias" if "absent" in case else "present.obj_score_last_bias"]
            )
            yield from ((f"{case}.{name}", tensor) for name, tensor in _decoded(model, golden, case))


def _decoded(model: Sam2, golden: Golden, case: str) -> Named:
    encoder, size = model.sam_prompt_encoder, model.variant.image_size
    points, labels = golden.get(f"{case}.in.point_coords_px"), golden.get(f"{case}.in.point_labels")
    if points is None:
        points, labels = torch.zeros(1, 1, 2), torch.full((1, 1), -1)
    padded = torch.cat((points, torch.zeros(1, 1, 2)), 1), torch.cat((labels, torch.full((1, 1), -1)), 1)
    sparse, mask = encoder.sparse(*padded, (size, size)), golden.get(f"{case}.in.mask_logits")
    yield "sparse_embeddings", sparse
    yield "dense_embeddings", encoder.dense(mask)
    high_res_features = golden["in.high_res_s0"], golden["in.high_res_s1"]
    decoded = model.decode(golden["in.backbone_features"], high_res_features, sparse, encoder.dense(mask))
    yield "raw_masks4", decoded.masks
    yield "raw_ious4", decoded.iou
    yield "raw_mask_tokens", decoded.tokens
    yield "object_score_logits", decoded.presence[:, None]
    # what is chosen of them, by the public way in: it adds `no_mem_embed`, which these features have already
    plain = golden["in.backbone_features"] - model.no_mem_embed.transpose(1, 2)[..., None]
    features = ImageFeatures(
        plain, high_res_features, ImageTransform((size, size), (size, size), (size, size))
    )
    prompt = Prompt() if case == "none" else _prompt_of_points(points[0], labels[0])
    for kind in ("multi", "single"):
        chosen = model.segment(
            features,
            prompt,
            mask_logits=None if mask is None else mask[0, 0].numpy(),
            multimask=kind == "multi",
        )
        rows = slice(1, None) if kind == "multi" else slice(chosen.best, chosen.best + 1)
        masks = chosen.logits if chosen.presence > 0 else torch.full_like(chosen.logits, ABSENT)
        yield f"{kind}.low_res_multimasks", masks[None, rows]
        yield f"{kind}.ious", torch.from_numpy(chosen.iou[None, rows])
        yield f"{kind}.low_res_masks", masks[None, [chosen.best]]
        yield f"{kind}.obj_ptr", chosen.pointers[[chosen.best_pointer]]


def _prompt_of_points(points: Tensor, labels: Tensor) -> Prompt:
    """A prompt of points some of which, labelled 2 and 3, are the corners of a box."""
    corners, clicks = points[labels >= 2], labels < 2
    box = corners.reshape(4).numpy() if len(corners) else None
    return Prompt(points[clicks].numpy(), labels[clicks].numpy(), box)


def memory_encoder(model: Sam2, golden: Golden) -> Named:
    features, logits = golden["in.pix_feat"], golden["in.mask_logits_high_res"]
    yield "maskmem_pos_enc", sine(golden["maskmem_pos_enc"].shape)
    with outputs_of({"mask_downsampler_out.tracked": model.memory_encoder.mask_downsampler}) as seen:
        present, absent = torch.ones(1), torch.full((1,), -3.0)
        yield "tracked_present.maskmem_features", model.encode_memory(features, logits, present, binary=False)
    yield from seen.items()
    yield "tracked_absent.maskmem_features", model.encode_memory(features, logits, absent, binary=False)
    yield "from_points.maskmem_features", model.encode_memory(features, logits, present, binary=True)
    yield from ((f"mask_prompt.{name}", tensor) for name, tensor in mask_prompt(model, golden))


def mask_prompt(model: Sam2, golden: Golden) -> Named:
    mask = golden["mask_prompt.in.mask01"]
    size = tuple(mask.shape[2:])
    high_res_features = golden["mask_prompt.in.high_res_s0"], golden["mask_prompt.in.high_res_s1"]
    features = ImageFeatures(golden["in.pix_feat"], high_res_features, ImageTransform(size, size, size))
    prediction = model.from_mask(features, mask[0, 0].numpy() > 0.5)
    presence = torch.tensor([prediction.presence])
    yield "low_res_masks", prediction.logits[None]
    yield "obj_ptr", prediction.pointers
    yield "object_score_logits", presence[:, None]
    # made here from the mask at full size, not from the low one that Meta's video code and `remember` go by
    yield "maskmem_features", model.encode_memory(features.embedding, mask * 20 - 10, presence, binary=True)


def memory_attention(model: Sam2, golden: Golden) -> Named:
    features = golden["in.current_vision_feat"]
    grid = golden["init_frame.output"].shape[2:]
    features = features.permute(1, 2, 0).unflatten(2, grid)
    yield "in.current_vision_pos_embed", sine(features.shape).flatten(2).permute(2, 0, 1)
    yield "in.maskmem_pos_enc", sine(golden["in.maskmem_pos_enc"].shape)
    yield "init_frame.output", features + model.no_mem_embed.transpose(1, 2)[..., None]
    attention = model.memory_attention
    for case, spec in golden.json("cases").items():
        recall = banked_as_meta(golden, spec)
        layers = {f"{case}.layer{i}_out": layer for i, layer in enumerate(attention.layers)}
        with outputs_of(layers) as seen, inputs_of({case: attention}) as given:
            yield f"{case}.output", model.recall(features, *recall)
        yield from seen.items()
        memory, places = given[case][1:3]
        yield f"{case}.memory", memory.transpose(0, 1)
        yield f"{case}.memory_pos", places.transpose(0, 1)
        pointer_tokens = memory.shape[1] - sum(part.shape[2] * part.shape[3] for part in recall[0])
        yield f"{case}.num_obj_ptr_tokens", torch.tensor(pointer_tokens)


def banked_as_meta(golden: Golden, spec: dict[str, Any]) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """The arguments of `Sam2.recall` for which Meta's code looks at a bank in frame `frame_idx`."""
    now, sign = spec["frame_idx"], -1 if spec["reverse"] else 1
    back = {sign * (now - int(frame)): index for frame, index in spec["non_cond"].items()}
    first = {sign * (now - int(frame)): index for frame, index in spec["cond"].items()}
    recent = [(k, back[k]) for k in range(MAX_RECENT, 0, -1) if k in back]
    last = min(spec["num_frames"], MAX_POINTERS + 1) - 1
    # from the newest on, up to the first frame that is not in a video of that length
    inside = takewhile(lambda k: 0 <= now - sign * k < spec["num_frames"], range(1, last + 1))
    pointing = [*first.items(), *((k, back[k]) for k in inside if k in back)]
    banked = [
        golden["in.bank_features"][[index]] for index in (*first.values(), *(index for _, index in recent))
    ]
    slots = [PRIOR_SLOT] * len(first) + [k - 1 for k, _ in recent]
    times = torch.tensor([[k for k, _ in pointing]]) / last
    pointers = golden["in.bank_obj_ptrs"][[index for _, index in pointing]]
    return banked, torch.tensor([slots]), pointers[None], times


def image_predict(model: Sam2, golden: Golden) -> Named:
    image = golden["image_u8"].numpy()
    pixels, _ = prepare(image, model.variant, None, True)
    features = model.encode(image)
    yield "model_input", torch.from_numpy(pixels)
    yield "image_embed", features.embedding + model.no_mem_embed.transpose(1, 2)[..., None]
    yield from zip(("high_res_s0", "high_res_s1"), features.high_res_features)
    for case in ("point1", "points3", "box", "boxpoint", "mask"):
        prompt, mask = prompt_of(golden, f"{case}.")
        for many in (True, False):
            prediction = model.segment(features, prompt, mask_logits=mask, multimask=many)
            rows = slice(1, None) if many else slice(prediction.best, prediction.best + 1)
            kind = f"{case}.{'multi' if many else 'single'}"
            yield f"{kind}.low_res_logits", prediction.logits[rows].clamp(-32, 32)  # as that predictor does
            yield f"{kind}.iou", torch.from_numpy(prediction.iou[rows])
            yield f"{kind}.orig_res_logits", prediction.transform.to_image(prediction.logits[rows])


# ---- SAM 2 and 2.1, whole runs


class Run(NamedTuple):
    """A golden video run, tracked by us.

    Parameters
    ----------
    tensors : dict
        Under the golden names.
    labels : dict of int to array
        What the tracker painted, at the size of the frames it was given.
    """

    tensors: dict[str, Tensor]
    labels: dict[int, np.ndarray]


def end_to_end(model: Sam2, golden: Golden, frames: np.ndarray, case: str) -> Run:
    """Track a golden run with Meta's choices of time and memory."""
    video_hw = tuple(golden.json("frame_hw"))
    out, labels, prior = {"maskmem_pos_enc": _places(model, golden)}, {}, PriorMemory()
    settings = TrackSettings(
        keep_lost=True,
        prior_time="elapsed",
        pointer_span=5 if case == "asis" else MAX_POINTERS,
        round_memories=case == "asis",
        direction="backward" if case == "reverse" else "forward",
    )
    for number in (0, 1):
        if f"prompt{number}.in.frame" in golden.tensors:
            prior = _recorded(model, golden, frames, number, prior, out)
    tracker = Tracker(model, prior, settings)
    for index in golden.json("tracked"):
        with (
            results_of(model, "recall", "decode", "track") as calls,
            outputs_of({"memory": model.memory_encoder}) as seen,
        ):
            labels[index] = tracker.step(frames[index], index).labels
        transform = ImageTransform(video_hw, frames.shape[1:3], frames.shape[1:3])
        tensors = _tracked_tensors(calls, transform) | {
            "maskmem_features": _stored(model, tracker.last_memories[1])
        }
        if isinstance(model, EdgeTam):
            tensors["memory_before_perceiver"] = seen["memory"][0]
        out |= {f"frame{index:02d}.{name}": tensor for name, tensor in tensors.items()}
    return Run(out, labels)


def _places(model: Sam2, golden: Golden) -> Tensor:
    if isinstance(model, EdgeTam):
        return model.spatial_perceiver.encoding()
    return sine(golden["maskmem_pos_enc"].shape)


def _stored(model: Sam2, memory: Memory) -> Tensor:
    """A memory as the golden files have it; EdgeTAM's are tokens, (L, mem_dim)."""
    return memory.spatial[:, 0].T if isinstance(model, EdgeTam) else memory.spatial


def _recorded(
    model: Sam2, golden: Golden, frames: np.ndarray, number: int, prior: PriorMemory, out: dict[str, Tensor]
) -> PriorMemory:
    of = f"prompt{number}."
    frame = int(golden[f"{of}in.frame"])
    features = model.encode(frames[frame])
    # the frames are resized already, the prompts are still in pixels of the video
    features = replace(
        features, transform=replace(features.transform, image_hw=tuple(golden.json("frame_hw")))
    )
    if (mask := golden.get(f"{of}in.mask")) is not None:
        prompt, prediction = Prompt(), model.from_mask(features, mask.numpy())
    else:
        prompt, _ = prompt_of(golden, of)
        prediction = model.segment(features, prompt)
    several = len(prompt.points_xy) == 1 and prompt.box_xyxy is None
    rows = slice(1, None) if several else slice(prediction.best, prediction.best + 1)
    out[f"{of}low_res_multimasks"] = prediction.logits[rows]
    out[f"{of}ious"] = torch.from_numpy(prediction.iou[rows])
    out[f"{of}pred_masks"] = prediction.logits[prediction.best]
    out[f"{of}obj_ptr"] = prediction.pointers[prediction.best_pointer]
    out[f"{of}object_score_logits"] = torch.tensor([prediction.presence])
    out[f"{of}video_res_logits"] = torch.from_numpy(prediction.image_logits())
    prediction = _settled(prediction, golden.get(f"{of}pred_masks"))
    with outputs_of({"memory": model.memory_encoder}) as seen:
        recording, memory = record(model, frames[frame], features, prompt, prediction)
    if isinstance(model, EdgeTam):
        out[f"frame{frame:02d}.memory_before_perceiver"] = seen["memory"][0]
    stored = _stored(model, memory)
    if "bfloat16" in golden.metadata["note"]:
        stored = stored.bfloat16().float()
    out[f"frame{frame:02d}.maskmem_features"] = stored
    return prior.with_recording(recording, memory)


def _settled(prediction: MaskPrediction, reference: Tensor | None) -> MaskPrediction:
    """Return the prediction, with the reference's logits where a pixel nearer to 0 than 1e-4 flipped.

    A prompted mask is cut at 0 before it becomes memory, and the golden README names priors with logits as
    small as 2e-5: on another processor such a pixel may fall on the other side, and all later frames differ.
    """
    if reference is None:
        return prediction
    size = prediction.transform.input_hw
    ours, theirs = (
        functional.interpolate(logits[None, None], size, mode="bilinear")[0, 0]
        for logits in (prediction.logits[prediction.best], reference)
    )
    flipped = (ours > 0) != (theirs > 0)
    if not flipped.any() or theirs[flipped].abs().max() >= 1e-4:
        return prediction
    logits = prediction.logits.clone()
    logits[prediction.best] = reference
    return replace(prediction, logits=logits)


def _tracked_tensors(calls: dict[str, Any], transform: ImageTransform) -> dict[str, Tensor]:
    tracked, decoded = calls["track"], calls["decode"]
    present = tracked.presence[0] > 0
    return {
        "pix_feat_with_mem": calls["recall"][0],
        "low_res_multimasks": torch.where(present, decoded.masks[0, 1:], ABSENT),
        "ious": decoded.iou[0, 1:],
        "pred_masks": tracked.logits[0],
        "obj_ptr": tracked.pointers[0],
        "object_score_logits": tracked.presence,
        "video_res_logits": transform.to_image(tracked.logits)[0],
    }


def sine(shape: torch.Size) -> Tensor:
    """Return the sine map of the shape (1, C, h, w), or (C, h, w)."""
    encoded = sine_map(shape[-3], (shape[-2], shape[-1]), CPU, torch.float32)
    return encoded.reshape(shape)


PARTS: dict[str, dict[str, Callable[..., Named]]] = {
    "SAM 1": {"image_encoder": v1_image_encoder, "predict": v1_predict},
    **{
        family: {
            "image_encoder": image_encoder,
            "prompt_decoder": prompt_decoder,
            "memory_encoder": memory_encoder,
            "memory_attention": memory_attention,
            "image_predict": image_predict,
        }
        for family in ("SAM 2", "SAM 2.1")
    },
}
PARTS["SAM 2"]["hiera_pos_embed"] = hiera_pos_embed
