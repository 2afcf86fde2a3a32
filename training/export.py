"""Write the averaged weights of a run as the bundled file: float16 safetensors with its configuration.

python -m training.export training/runs/gpu/average.safetensors --presence 0.6
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file, save_file

from napari_samexp.sam.weights.loading import load_model, metadata_for
from training.model import STARTER

PRESENCE = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"
BUNDLED = Path(__file__).parents[1] / "src" / "napari_samexp" / "starter.safetensors"


def export(source: Path, out: Path, presence: float) -> None:
    """Write weights in float16, with a number added to the logit of presence."""
    weights = {key: value.half().contiguous() for key, value in load_file(source).items()}
    weights[PRESENCE] = (weights[PRESENCE].float() + presence).half()
    notes = {"licence": "Apache-2.0", "made_by": "training/train.py"}
    save_file(weights, out, metadata_for(STARTER) | notes)
    out.chmod(0o644)  # safetensors by itself writes files that only their owner can read


def main(words: list[str] | None = None) -> None:
    """Export as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="averaged weights of a run")
    parser.add_argument("--out", type=Path, default=BUNDLED)
    parser.add_argument("--presence", type=float, default=0.0, help="added to the logit of presence")
    args = parser.parse_args(words)
    export(args.source, args.out, args.presence)
    parameters = sum(p.numel() for p in load_model(args.out, device="cpu").parameters())
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, {parameters / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
