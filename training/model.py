"""The starter, a small SAM 2.1, with the heads that only training has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_samexp.sam.build import new_model
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.sam.variants import Sam2Variant
from training.scenes import KINDS

STARTER = Sam2Variant(
    name="starter",
    version="2.1",
    embed_dim=40,
    num_heads=1,
    stages=(1, 2, 4, 1),
    global_blocks=(5, 6),
    window_spec=(8, 4, 8, 4),
    image_size=384,
    d_model=128,
    mem_dim=32,
    mem_ff=256,
    mem_layers=2,
    mlp_dim=256,
    iou_hidden=64,
)


class Starter(nn.Module):
    """The model, and heads that are not in the checkpoint.

    Attributes
    ----------
    readout
        Says from each conditioned feature whether it shows the object.
    token_scale
        Factor and offset that make a logit of the cosine between features.
    by_token, kept, pooled
        Say the kind of an outline: from each feature, from what memory keeps of it, from a whole thing.
    """

    def __init__(self) -> None:
        super().__init__()
        kinds, width = len(KINDS), STARTER.d_model
        self.sam = new_model(STARTER)
        self.readout = nn.Linear(width, 1)
        self.token_scale = nn.Parameter(torch.tensor([8.0, -3.0]))
        self.by_token = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, kinds))
        self.pooled = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, kinds))
        self.kept = nn.Linear(STARTER.mem_dim * 3 // 4, kinds)
        for last in (self.by_token[2], self.pooled[2], self.kept):
            nn.init.zeros_(last.weight)  # a head that knows nothing must not teach the features it reads

    def train_encoder_only(self, alone: bool) -> None:
        """Let the encoder and the heads of outlines learn, and the rest too unless they are `alone`."""
        self.requires_grad_(not alone)
        decoder = self.sam.sam_mask_decoder
        encoder = (self.sam.image_encoder, decoder.conv_s0, decoder.conv_s1)
        for part in (*encoder, self.by_token, self.pooled, self.kept):
            part.requires_grad_(True)

    def load(self, weights: Path) -> None:
        """Load exported weights, which have none of the heads."""
        load_weights(self.sam, weights)
        nn.init.zeros_(self.readout.weight)  # as above


def load_weights(sam: Sam2, weights: Path) -> None:
    """Load exported weights, in float32."""
    sam.load_state_dict({key: value.float() for key, value in load_file(weights).items()})


def initialise(model: Starter, seed: int) -> None:
    """Set the weights that torch's own defaults leave at zero or too large, and pre-wire the memory."""
    torch.manual_seed(seed)
    for name, value in model.sam.named_parameters():
        if any(part in name for part in ("pos_embed", "tpos_enc", "no_mem", "no_obj")):
            nn.init.trunc_normal_(value, std=0.05)
        elif name.endswith("gamma"):
            nn.init.constant_(value, 0.1)
        elif name.endswith("bias") and value.ndim == 1 and "norm" not in name:
            nn.init.zeros_(value)
    wire_memory(model.sam)


@torch.no_grad()
def wire_memory(sam: Sam2, gain: float = 6.0) -> None:
    """Let cross-attention begin as a comparison of appearance.

    Keys keep a random projection of the frame's features and queries use the same one, in channels that RoPE hardly
    rotates. So a token of the object attends to tokens like itself wherever they are, which random weights take very
    long to find.
    """
    dim, mem = sam.variant.d_model, sam.variant.mem_dim
    kept = mem * 3 // 4
    basis = torch.linalg.qr(torch.randn(dim, dim))[0]
    encoder = sam.memory_encoder
    encoder.pix_feat_proj.weight.copy_(torch.eye(dim)[..., None, None])
    encoder.out_proj.weight[:kept] = basis[:kept, :, None, None]
    slow = torch.cat([torch.arange(dim // 4, dim // 2), torch.arange(dim * 3 // 4, dim)])
    spread = torch.linalg.qr(torch.randn(len(slow), kept))[0]
    for layer in sam.memory_attention.layers:
        attention = layer.cross_attn_image
        attention.q_proj.weight.mul_(0.1)
        attention.k_proj.weight.mul_(0.1)
        attention.k_proj.weight[slow] = torch.cat((spread, torch.zeros(len(slow), mem - kept)), 1)
        attention.q_proj.weight[slow] = gain * spread @ basis[:kept]


@torch.no_grad()
def soften(sam: Sam2, factors: Sequence[float]) -> None:
    """Multiply the queries of each layer that attends to memories, where a run begins.

    They begin so large (`wire_memory`) that every place attends to a single token of memory, and queries and keys get
    next to no gradient through that.

    Raises
    ------
    ValueError
        If there is not one factor for each layer.
    """
    for layer, factor in zip(sam.memory_attention.layers, factors, strict=True):
        project = layer.cross_attn_image.q_proj
        project.weight.mul_(factor)
        project.bias.mul_(factor)


def memory_projection(sam: Sam2) -> Tensor:
    """Return the map (3/4 mem_dim, d_model) from features to what memory keeps of them, without gradients."""
    encoder = sam.memory_encoder
    kept = encoder.out_proj.weight.shape[0] * 3 // 4
    return (encoder.out_proj.weight[:kept, :, 0, 0] @ encoder.pix_feat_proj.weight[..., 0, 0]).detach()
