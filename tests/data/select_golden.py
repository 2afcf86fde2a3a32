"""Make the compact selection in tests/data/golden from the full golden files.

    python tests/data/select_golden.py SOURCE [TARGET]

SOURCE is the folder of all golden files. Every file, part and case stays; left out are tensors that say what
another one says already. Tensors that pack well (frames with the same texture, 0/1 masks) are kept as the
bytes of an xz stream under NAME.xz, their type and shape in the metadata "packed".
"""

from __future__ import annotations

import json
import lzma
import re
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

# files, tensors, and why these are not needed
LEFT_OUT = (
    ("e2e_long", r"frames_u8", "the model sees frames_resized_u8"),
    (
        "e2e_long",
        r"frame(?!01|08|17)\d\d\.(low_res_multimasks|pix_feat_with_mem)|(?!frame(17|18)).+\.video_res_logits",
        "bulky; some frames show it, and pred_masks, pointers and memories of all frames stay",
    ),
    (
        "e2e_(?!long)",
        r"frame(?!00|05|07)\d\d\.(low_res_multimasks|pix_feat_with_mem|video_res_logits)",
        "bulky; the last frame shows what all before it led to",
    ),
    ("e2e_(asis|mask|reverse)", r".+\.video_res_logits", "a resize, which the other runs show"),
    ("e2e_(boxpoints|two_priors)", r"prompt.+\.video_res_logits", "a resize, which the last frame shows"),
    ("sam2.*image_encoder", r"native\.backbone_fpn[01]", "the high_res tensors are one convolution further"),
    ("prompt_decoder", r"(?!absent).+\.low_res_multimasks", "rows of raw_masks4"),
    ("prompt_decoder", r"absent\.point1\.raw.+", "those of point1"),
    ("image_predict", r"model_input", "image_embed is made from it"),
    ("v1_predict", r"img.\.model_input|img0\.resized_u8", "the embedding is made from them"),
    ("v1_predict", r"img.\.box.*\.orig_res_logits", "points3 shows the resize"),
    ("e2e_(asis|two_priors)", r"prompt0\.low_res_multimasks", "the prompt is that of e2e_long"),
    (
        "hiera_pos_embed",
        r"tiny\.composed_256.*|base_plus\.composed_128.*",
        "each table with one of the sizes",
    ),
)
PACK = ".xz"


def main(source: Path, target: Path) -> None:
    """Write the selection of all golden files in `source` to `target`."""
    target.mkdir(parents=True, exist_ok=True)
    before = after = 0
    for path in sorted(source.glob("*.safetensors")):
        out = target / path.name
        select(path, out)
        before, after = before + path.stat().st_size, after + out.stat().st_size
        sys.stdout.write(f"{path.name}: {path.stat().st_size} to {out.stat().st_size} bytes\n")
    sys.stdout.write(f"{before} to {after} bytes\n")


def select(path: Path, out: Path) -> None:
    """Write the tensors of `path` that are kept to `out`, with the same metadata."""
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
        kept = {name: file.get_tensor(name) for name in file.keys() if not is_left_out(path.stem, name)}  # noqa: SIM118
    shapes = {}
    for name in [name for name, tensor in kept.items() if packs_well(tensor)]:
        tensor = kept.pop(name)
        shapes[name + PACK] = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        kept[name + PACK] = torch.frombuffer(bytearray(packed(tensor)), dtype=torch.uint8)
    if shapes:
        metadata["packed"] = json.dumps(shapes, sort_keys=True)
    save_file(dict(sorted(kept.items())), out, metadata)


def is_left_out(stem: str, name: str) -> bool:
    """Whether a tensor of a file is left out."""
    return any(re.search(files, stem) and re.fullmatch(names, name) for files, names, _ in LEFT_OUT)


def packs_well(tensor: Tensor) -> bool:
    """Whether a tensor is large and packs to less than half; random floats do not."""
    size = tensor.numel() * tensor.element_size()
    return size >= 4096 and len(packed(tensor)) < size / 2


def packed(tensor: Tensor) -> bytes:
    """Return the xz stream of a tensor's bytes."""
    return lzma.compress(tensor.contiguous().numpy().tobytes(), preset=9)


if __name__ == "__main__":
    default = Path(__file__).resolve().parent / "golden"
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else default)
