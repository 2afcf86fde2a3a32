"""One implementation of SAM on images, in a process of its own; started by ``image_speed.py``.

Jobs: "encode" an image; "click", masks for one point at the image's size, the image being encoded.
With ``--load`` it only times, once, how long it takes to read the file ("read") or to have a model of it ("load").
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.frame_peer import frame
from benchmarks.speed.torchvision_stand_in import install
from benchmarks.speed.turns import answer, peak_mib

CLICK = (400, 200)
SAM2_CONFIGS = {
    "sam2.1_hiera_tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "sam2.1_hiera_small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "sam2.1_hiera_base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "sam2.1_hiera_large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}

Jobs = dict[str, Callable[[], object]]


def load_ours(args: argparse.Namespace) -> object:
    from napari_samexp.sam import load_model

    return load_model(args.weights, device="cpu", dtype=args.dtype)


def load_meta(args: argparse.Namespace) -> object:
    sys.path.insert(0, str(args.checkout))
    install()
    if args.model.startswith("sam_vit"):
        from segment_anything import sam_model_registry

        return sam_model_registry[args.model.removeprefix("sam_")](checkpoint=str(args.weights))
    from sam2.build_sam import build_sam2

    return build_sam2(SAM2_CONFIGS[args.model], str(args.weights), device="cpu")


def ours(args: argparse.Namespace) -> Jobs:
    from napari_samexp.types import Prompt

    model, image = load_ours(args), frame(0)
    features = model.encode(image, side=args.side)
    prompt = Prompt.from_lists(objects=[CLICK])
    return {
        "encode": lambda: model.encode(image, side=args.side),
        # the best mask at the image's size, as the dock shows it
        "click": lambda: model.segment(features, prompt).mask(),
    }


def meta(args: argparse.Namespace) -> Jobs:
    model, image = load_meta(args), frame(0)
    if args.model.startswith("sam_vit"):
        from segment_anything import SamPredictor as Predictor
    else:
        from sam2.sam2_image_predictor import SAM2ImagePredictor as Predictor
    predictor = Predictor(model)
    predictor.set_image(image)
    point, label = np.array([CLICK], np.float32), np.array([1], np.int32)
    return {
        "encode": lambda: predictor.set_image(image),
        "click": lambda: predictor.predict(point, label, multimask_output=True),
    }


def transformers(args: argparse.Namespace) -> Jobs:
    if args.model == "sam_vit_b":
        from transformers import SamConfig, SamModel

        model = SamModel(SamConfig()).eval()  # whose default is vit_b
    else:
        from transformers import Sam2Config, Sam2Model

        model = Sam2Model(Sam2Config()).eval()  # whose default is SAM 2.1 tiny
    image = torch.from_numpy(frame(0)).permute(2, 0, 1)[None].float() / 255
    point = torch.tensor([[[[480.0, 430.0]]]])

    @torch.inference_mode()
    def encode() -> object:
        pixels = torch.nn.functional.interpolate(image, (1024, 1024), mode="bilinear", antialias=True)
        return model.get_image_embeddings(pixels - 0.45)

    embeddings = encode()

    @torch.inference_mode()
    def click() -> object:
        found = model(input_points=point, image_embeddings=embeddings)
        masks = found.pred_masks.flatten(0, 1)
        return torch.nn.functional.interpolate(masks, image.shape[2:], mode="bilinear") > 0

    return {"encode": encode, "click": click}


def read(path: Path) -> None:
    """Read a whole file into memory as fast as a plain program can."""
    room = bytearray(path.stat().st_size)
    with path.open("rb", buffering=0) as file:
        view, done = memoryview(room), 0
        while count := file.readinto(view[done:]):
            done += count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=("ours", "meta", "transformers"))
    parser.add_argument("--model", default="sam2.1_hiera_tiny")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--checkout", type=Path)
    parser.add_argument("--side", type=int)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--load", choices=("read", "load"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.load is None:
        answer({"ours": ours, "meta": meta, "transformers": transformers}[args.peer](args))
        return
    if args.peer == "ours":
        from napari_samexp.sam import load_model  # noqa: F401 # importing is no part of loading
    work = {
        "read": lambda: read(args.weights),
        "load": lambda: {"ours": load_ours, "meta": load_meta}[args.peer](args),
    }
    wall, cpu = time.perf_counter(), time.process_time()
    kept = work[args.load]()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    del kept
    print(json.dumps({"wall": 1000 * wall, "cpu": 1000 * cpu, "peak": peak_mib()}))


if __name__ == "__main__":
    main()
