"""Write the averaged weights of a training run as the bundled file: float16 safetensors with its configuration."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from train import STARTER

from napari_samexp.sam.loading import build, load_model, metadata_for

BUNDLED = Path(__file__).parents[1] / "src" / "napari_samexp" / "starter.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path, help="state.pt of a training run")
    parser.add_argument("--side", type=int, default=STARTER.image_size, help="the model's own encode side")
    parser.add_argument("--out", type=Path, default=BUNDLED)
    parser.add_argument("--blend", type=Path, help="weights that the run began with, to be averaged in")
    parser.add_argument("--share", type=float, default=0.15, help="of the weights to be averaged in")
    args = parser.parse_args()
    saved = torch.load(args.state, weights_only=True)
    variant = replace(STARTER, image_size=args.side)
    wanted = build(variant).state_dict()
    weights = {key: saved["average"][f"sam.{key}"].half().contiguous() for key in wanted}
    if args.blend:
        # on the way from one to the other lie weights that are better at what neither was trained for last
        earlier = load_file(args.blend)
        weights = {
            key: (args.share * earlier[key].float() + (1 - args.share) * value.float()).half()
            for key, value in weights.items()
        }
    notes = {"steps": str(saved["step"]), "licence": "Apache-2.0", "made_by": "training/train.py"}
    save_file(weights, args.out, metadata_for(variant) | notes)
    args.out.chmod(0o644)  # safetensors writes files that only their owner can read
    parameters = sum(p.numel() for p in load_model(args.out, device="cpu").parameters())
    print(
        f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, {parameters / 1e6:.2f} M parameters, step {saved['step']}"
    )


if __name__ == "__main__":
    main()
