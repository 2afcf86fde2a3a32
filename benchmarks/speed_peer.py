"""One implementation of SAM 2.1 in a process of its own, which tracks a frame whenever it is told to.

Started by ``speed.py``. Reads "step" or "stop" from its standard input and answers each step with a line of
JSON: wall and CPU milliseconds of the frame and the peak resident size in MiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

FRAMES = 400
PICTURE_HW = (480, 854)


def frame(index: int) -> np.ndarray:
    """(H, W, 3) uint8: coloured waves that drift."""
    y, x = np.mgrid[: PICTURE_HW[0], : PICTURE_HW[1]].astype(np.float32)
    waves = [np.sin(x / 31 + k + index / 9) + np.cos(y / 23 - k + index / 7) for k in range(3)]
    return (127 + 60 * np.stack(waves, axis=2)).astype(np.uint8)


def ours(args: argparse.Namespace) -> Callable[[], object]:
    from napari_samexp.sam import load_model
    from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, record
    from napari_samexp.types import Prompt

    model = load_model(args.weights, device="cpu", dtype=args.dtype)
    picture = frame(0)
    features = model.encode(picture, side=args.side)
    prediction = model.segment(features, Prompt.from_lists(objects=[(400, 200)]))
    prior = PriorMemory()
    for label in range(1, args.labels + 1):
        made = record(
            model, picture, features, Prompt.from_lists(objects=[(400, 200)]), prediction, label=label
        )
        prior = prior.with_recording(*made)
    # frames count as lost or not by chance with random weights; all are remembered, as the others do
    tracker = Tracker(model, prior, TrackSettings(side=args.side, keep_lost=True))
    indices = iter(range(FRAMES))

    def step() -> None:
        index = next(indices)
        tracker.step(frame(index), index)

    return step


def meta(args: argparse.Namespace) -> Callable[[], object]:
    sys.path.insert(0, str(args.checkout))
    if "torchvision" not in sys.modules:
        _stand_in_for_torchvision()
    from PIL import Image
    from sam2.build_sam import build_sam2_video_predictor

    size = [f"++model.image_size={args.side}"] if args.side else []
    if args.side:
        grid = args.side // 16
        for part in ("self_attention", "cross_attention"):
            size.append(f"++model.memory_attention.layer.{part}.feat_sizes=[{grid},{grid}]")
    predictor = build_sam2_video_predictor(
        args.config, str(args.weights), device="cpu", hydra_overrides_extra=size
    )
    folder = Path(tempfile.mkdtemp())
    for index in range(args.most):
        Image.fromarray(frame(index)).save(folder / f"{index:05d}.jpg", quality=95)
    state = predictor.init_state(str(folder))
    for label in range(1, args.labels + 1):
        predictor.add_new_points_or_box(
            state, 0, label, points=np.array([[400, 200]], np.float32), labels=np.array([1], np.int32)
        )
    run = predictor.propagate_in_video(state)
    next(run)  # the prompted frame itself
    return lambda: next(run)


def _stand_in_for_torchvision() -> None:
    """What the predictor imports and this benchmark never uses, where there is no torchvision."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        for name, parts in (
            ("torchvision", ()),
            ("torchvision.transforms", ("Normalize", "Resize", "ToTensor")),
            ("torchvision.ops", ()),
            ("torchvision.ops.boxes", ("batched_nms", "box_area")),
        ):
            module = types.ModuleType(name)
            for part in parts:
                setattr(module, part, torch.nn.Identity)
            sys.modules[name] = module


def transformers(args: argparse.Namespace) -> Callable[[], object]:
    from transformers import Sam2VideoConfig, Sam2VideoModel
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    torch.manual_seed(0)
    model = Sam2VideoModel(Sam2VideoConfig()).eval()  # the default configuration is SAM 2.1 tiny
    side = model.config.image_size
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    pixels = []
    for index in range(args.most):
        picture = torch.from_numpy(frame(index)).permute(2, 0, 1)[None].float() / 255
        pixels.append(
            (
                torch.nn.functional.interpolate(picture, (side, side), mode="bilinear", antialias=True)[0]
                - mean
            )
            / std
        )
    session = Sam2VideoInferenceSession(
        video=torch.stack(pixels), video_height=PICTURE_HW[0], video_width=PICTURE_HW[1], dtype=torch.float32
    )
    for label in range(1, args.labels + 1):
        number = session.obj_id_to_idx(label)
        point = {"point_coords": torch.tensor([[[[480.0, 430.0]]]]), "point_labels": torch.tensor([[[1]]])}
        session.add_point_inputs(number, 0, point)
    session.obj_with_new_inputs = list(range(1, args.labels + 1))
    with torch.inference_mode():
        model(inference_session=session, frame_idx=0)
    indices = iter(range(1, FRAMES))

    def step() -> None:
        with torch.inference_mode():
            model(inference_session=session, frame_idx=next(indices))

    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", choices=("ours", "meta", "transformers"))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--checkout", type=Path, help="of Meta's repository")
    parser.add_argument("--config", default="configs/sam2.1/sam2.1_hiera_t.yaml")
    parser.add_argument("--side", type=int)
    parser.add_argument("--labels", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=int, default=40, help="frames that the peer has to have at hand")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    step = {"ours": ours, "meta": meta, "transformers": transformers}[args.peer](args)
    out = sys.stdout
    sys.stdout = sys.stderr  # libraries may talk there
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        if line.strip() != "step":
            break
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"wall": 1000 * wall, "cpu": 1000 * cpu, "peak": peak}), file=out, flush=True)


if __name__ == "__main__":
    main()
