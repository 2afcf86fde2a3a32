"""Write the averaged weights of a training run as the bundled file: float16 safetensors with its configuration."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from train import STARTER

from napari_samexp.sam.loading import build, load_model, metadata_for

PRESENCE = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
BUNDLED = Path(__file__).parents[1] / "src" / "napari_samexp" / "starter.safetensors"


def averaged(source: Path, model: nn.Module) -> dict[str, Tensor]:
    """Return the averaged weights of a run, which training's own read-outs are not among."""
    if source.suffix == ".safetensors":
        return load_file(source)
    saved = torch.load(source, weights_only=True)["average"]
    return {key: saved[f"sam.{key}"] for key in model.state_dict()}


def write(weights: dict[str, Tensor], path: Path, notes: dict[str, str]) -> None:
    """Write a weights file; safetensors by itself writes files that only their owner can read."""
    save_file(weights, path, notes)
    path.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="state.pt of a training run, or weights that one left")
    parser.add_argument("--side", type=int, default=STARTER.image_size, help="the model's own encode side")
    parser.add_argument("--out", type=Path, default=BUNDLED)
    parser.add_argument("--blend", type=Path, help="weights that the run began with, to be averaged in")
    parser.add_argument("--share", type=float, default=0.15, help="of the weights to be averaged in")
    parser.add_argument("--presence", type=float, default=0.0, help="added to the logit of presence")
    args = parser.parse_args()
    variant = replace(STARTER, image_size=args.side)
    weights = {key: value.half().contiguous() for key, value in averaged(args.source, build(variant)).items()}
    if args.blend:
        # on the way from one to the other lie weights that are better at what neither was trained for last
        earlier = load_file(args.blend)
        weights = {
            key: (args.share * earlier[key].float() + (1 - args.share) * value.float()).half()
            for key, value in weights.items()
        }
    weights[PRESENCE] = (weights[PRESENCE].float() + args.presence).half()
    notes = {"licence": "Apache-2.0", "made_by": "training/train.py"}
    write(weights, args.out, metadata_for(variant) | notes)
    parameters = sum(p.numel() for p in load_model(args.out, device="cpu").parameters())
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, {parameters / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
