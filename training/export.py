"""Write the averaged weights of a training run as the bundled file: float16 safetensors with its configuration."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from train import STARTER

from napari_samexp.sam.loading import build, load_model, metadata_for

BUNDLED = Path(__file__).parents[1] / "src" / "napari_samexp" / "starter.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path, help="state.pt of a training run")
    parser.add_argument("--side", type=int, default=STARTER.image_size, help="the model's own encode side")
    parser.add_argument("--out", type=Path, default=BUNDLED)
    args = parser.parse_args()
    saved = torch.load(args.state, weights_only=True)
    variant = replace(STARTER, image_size=args.side)
    wanted = build(variant).state_dict()
    weights = {key: saved["average"][f"sam.{key}"].half().contiguous() for key in wanted}
    notes = {"steps": str(saved["step"]), "licence": "Apache-2.0", "made_by": "training/train.py"}
    save_file(weights, args.out, metadata_for(variant) | notes)
    args.out.chmod(0o644)  # safetensors writes files that only their owner can read
    parameters = sum(p.numel() for p in load_model(args.out, device="cpu").parameters())
    print(
        f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, {parameters / 1e6:.2f} M parameters, step {saved['step']}"
    )


if __name__ == "__main__":
    main()
