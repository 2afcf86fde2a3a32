"""One implementation of SAM 2.1 in a process of its own, which tracks a frame whenever it is told to.

Started by ``frame_speed.py``, ``scaling.py`` and ``gpu_speed.py``; see ``turns.answer``. Its only job is "frame".
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed.torchvision_stand_in import install
from benchmarks.speed.turns import Stages, answer

FRAMES = 100_000
IMAGE_HW = (480, 854)
CLICK = (400, 200)
CONFIGS = {
    "sam2.1_hiera_tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "sam2.1_hiera_small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "sam2.1_hiera_base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "sam2.1_hiera_large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}
# trunk of each size for transformers, whose default is tiny
TRUNKS: dict[str, dict[str, Any]] = {
    "sam2.1_hiera_tiny": {},
    "sam2.1_hiera_small": {"blocks_per_stage": [1, 2, 11, 2], "global_attention_blocks": [7, 10, 13]},
    "sam2.1_hiera_base_plus": {
        "hidden_size": 112,
        "num_attention_heads": 2,
        "blocks_per_stage": [2, 3, 16, 3],
        "embed_dim_per_stage": [112, 224, 448, 896],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "global_attention_blocks": [12, 16, 20],
        "window_positional_embedding_background_size": [14, 14],
    },
    "sam2.1_hiera_large": {
        "hidden_size": 144,
        "num_attention_heads": 2,
        "blocks_per_stage": [2, 6, 36, 4],
        "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "window_size_per_stage": [8, 4, 16, 8],
        "global_attention_blocks": [23, 33, 43],
        "window_positional_embedding_background_size": [7, 7],
    },
}

Step = Callable[[], object]


def frame(index: int) -> np.ndarray:
    """(H, W, 3) uint8: coloured waves that drift."""
    y, x = (np.arange(n, dtype=np.float32) for n in IMAGE_HW)
    y = y[:, None]
    waves = [np.sin(x / 31 + k + index / 9) + np.cos(y / 23 - k + index / 7) for k in range(3)]
    return (127 + 60 * np.stack(waves, axis=2)).astype(np.uint8)


def ours(args: argparse.Namespace, stages: Stages) -> Step:
    from napari_samexp.sam import load_model
    from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, record
    from napari_samexp.types import Prompt

    model = load_model(args.weights, device=args.device, dtype=args.dtype)
    if args.optimized:
        from napari_samexp.sam.fast.graphs import compile_model

        compile_model(model, graphs_only=args.graphs_only)
    image = frame(0)
    features = model.encode(image, side=args.side)
    prompt = Prompt.from_lists(objects=[CLICK])
    prediction = model.segment(features, prompt)
    prior = PriorMemory()
    for label in range(1, args.labels + 1):
        for _ in range(args.recordings):
            prior = prior.with_recording(*record(model, image, features, prompt, prediction, label=label))
    del features, prediction
    if not args.no_stages:
        stages.watch(model, image="image_features", recall="recall", decode="track", remember="encode_memory")
    # frames count as lost or not by chance with random weights; all are remembered, as the others do
    settings = TrackSettings(side=args.side, keep_lost=True, recent=args.recent)
    tracker = Tracker(model, prior, settings)
    # drawn beforehand, as for the others: drawing one takes longer than decoding one
    frames = enumerate([frame(index) for index in range(args.most)])

    def step() -> None:
        index, image = next(frames)
        tracker.step(image, index)

    return step


def meta(args: argparse.Namespace, stages: Stages) -> Step:
    sys.path.insert(0, str(args.checkout))
    install()
    if args.device.startswith("cuda"):  # as Meta's own benchmark.py has it
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    from PIL import Image
    from sam2.build_sam import build_sam2_video_predictor

    overrides = []
    if args.side:
        grid = args.side // 16
        overrides.append(f"++model.image_size={args.side}")
        for part in ("self_attention", "cross_attention"):
            overrides.append(f"++model.memory_attention.layer.{part}.feat_sizes=[{grid},{grid}]")
    predictor = build_sam2_video_predictor(
        CONFIGS[args.model],
        str(args.weights),
        device=args.device,
        hydra_overrides_extra=overrides,
        vos_optimized=args.optimized,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(args.most):
            Image.fromarray(frame(index)).save(folder / f"{index:05d}.jpg", quality=95)
        state = predictor.init_state(str(folder))
    for label in range(1, args.labels + 1):
        predictor.add_new_points_or_box(
            state, 0, label, points=np.array([CLICK], np.float32), labels=np.array([1], np.int32)
        )
    if not args.no_stages:
        stages.watch(
            predictor,
            image="forward_image",
            recall="_prepare_memory_conditioned_features",
            decode="_forward_sam_heads",
            remember="_encode_memory_in_output",
        )
    run = predictor.propagate_in_video(state)
    video = {"video": state["images"].nbytes / 2**20}

    def step() -> dict[str, float]:
        # Meta's way to other types: the weights stay float32, and operations choose
        with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.dtype == "bfloat16"):
            next(run)
        return video

    step()  # the prompted frame itself
    return step


def transformers(args: argparse.Namespace, stages: Stages) -> Step:
    from transformers import Sam2VideoConfig, Sam2VideoModel
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    torch.manual_seed(0)
    config = Sam2VideoConfig()
    for name, value in TRUNKS[args.model].items():
        setattr(config.vision_config.backbone_config, name, value)
    if TRUNKS[args.model].get("embed_dim_per_stage"):
        config.vision_config.backbone_channel_list = TRUNKS[args.model]["embed_dim_per_stage"][::-1]
    dtype = getattr(torch, args.dtype)
    model = Sam2VideoModel(config).eval().to(args.device, dtype)
    side = model.config.image_size
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    pixels = []
    for index in range(args.most):
        image = torch.from_numpy(frame(index)).permute(2, 0, 1)[None].float() / 255
        resized = torch.nn.functional.interpolate(image, (side, side), mode="bilinear", antialias=True)[0]
        pixels.append(((resized - mean) / std).to(dtype))
    session = Sam2VideoInferenceSession(
        video=torch.stack(pixels),
        video_height=IMAGE_HW[0],
        video_width=IMAGE_HW[1],
        inference_device=args.device,
        inference_state_device=args.device,  # both as its processor chooses them
        video_storage_device=args.device,
        dtype=dtype,
    )
    for label in range(1, args.labels + 1):
        number = session.obj_id_to_idx(label)
        point = {
            "point_coords": torch.tensor([[[[480.0, 430.0]]]], device=args.device, dtype=dtype),
            "point_labels": torch.tensor([[[1]]], device=args.device),
        }
        session.add_point_inputs(number, 0, point)
    session.obj_with_new_inputs = list(range(1, args.labels + 1))
    if args.optimized:
        model = torch.compile(model)
    with torch.inference_mode():
        model(inference_session=session, frame_idx=0)
    indices = iter(range(1, FRAMES))
    video = {"video": sum(image.nbytes for image in pixels) / 2**20}

    def step() -> dict[str, float]:
        with torch.inference_mode():
            model(inference_session=session, frame_idx=next(indices))
        return video

    return step


PEERS: dict[str, Callable[[argparse.Namespace, Stages], Step]] = {
    "ours": ours,
    "meta": meta,
    "transformers": transformers,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="sam2.1_hiera_tiny", choices=CONFIGS)
    parser.add_argument("--side", type=int)
    parser.add_argument("--labels", type=int, default=1)
    parser.add_argument("--recordings", type=int, default=1, help="of each label; ours only")
    parser.add_argument("--recent", type=int, default=6, help="recent memories; ours only")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--optimized", action="store_true", help="compiled, as the peer offers it")
    parser.add_argument("--graphs-only", action="store_true", help="CUDA graphs, nothing compiled; ours only")
    parser.add_argument("--no-stages", action="store_true", help="do not time the stages")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--checkout", type=Path, help="of Meta's repository")
    parser.add_argument("--most", type=int, default=40, help="frames that the peer has to have at hand")
    add_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stages = Stages()
    step = PEERS[args.peer](args, stages)
    if args.device.startswith("cuda"):
        step = _finished(step)
    answer({"frame": step}, None if args.no_stages else stages)


def _finished(step: Step) -> Step:
    """Return a step that ends when the GPU's work has, and tells how much of its memory was taken at most."""

    def wait() -> dict[str, float]:
        found = step()
        torch.cuda.synchronize()
        figures = found if isinstance(found, dict) else {}
        # a graph's memory is no longer allocated once it was recorded, but it is taken
        taken = {"gpu_peak": torch.cuda.max_memory_allocated(), "gpu_taken": torch.cuda.max_memory_reserved()}
        return figures | {name: value / 2**20 for name, value in taken.items()}

    return wait


if __name__ == "__main__":
    main()
