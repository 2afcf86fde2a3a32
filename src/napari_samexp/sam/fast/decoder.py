"""The mask decoder on a CPU: masks some rows at a time, and attention without projecting the whole image."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.fast import on_cpu

if TYPE_CHECKING:
    from napari_samexp.sam.layers import Attention, LayerNorm2d
    from napari_samexp.sam.mask_decoder import MaskDecoder

__all__ = ["folding_pays", "from_image", "masks_in_bands", "to_image"]

BAND = 512  # tokens that are upscaled at a time


def masks_in_bands(
    decoder: MaskDecoder, x: Tensor, high_res_features: tuple[Tensor, Tensor] | None, weights: Tensor
) -> Tensor:
    """Return the masks, some rows at a time, so that what lies between stays in the processor's cache.

    Each token becomes 2 x 2 and each of these 2 x 2 again, as further axes of the array, channels last: both
    transposed convolutions are matrix products, and only the masks are put in the order of pixels.

    Parameters
    ----------
    x : Tensor, shape (N, h, w, C)
    weights : Tensor, shape (N, M, C / 8)

    Returns
    -------
    Tensor, shape (N, M, 4 h, 4 w)
    """
    count, height, width, _ = x.shape
    masks = weights.shape[1]
    out = x.new_empty(count, masks, height, 4, width, 4)
    step = max(1, BAND // (count * width))
    for top in range(0, height, step):
        rows = slice(top, top + step)
        z = _upscaled(decoder, x, high_res_features, rows)  # (N, r, w, 2, 2, 2, 2, C / 8)
        band = (z.flatten(1, 6) @ weights.transpose(1, 2)).view(*z.shape[:-1], masks)
        ordered = band.permute(0, 7, 1, 3, 5, 2, 4, 6)  # (N, M, r, 2, 2, w, 2, 2)
        out[:, :, rows].unflatten(5, (2, 2)).unflatten(3, (2, 2)).copy_(ordered)
    return out.flatten(4, 5).flatten(2, 3)


def _upscaled(
    decoder: MaskDecoder, x: Tensor, high_res_features: tuple[Tensor, Tensor] | None, rows: slice
) -> Tensor:
    """Return some rows of tokens (N, h, w, C) four times as large, (N, r, w, 2, 2, 2, 2, C / 8)."""
    up1, norm, _, up2, _ = decoder.output_upscaling
    some = x[:, rows]
    y = _as_product(up1, some.reshape(-1, some.shape[3]))
    y = y.view(*some.shape[:3], 2, 2, -1)  # channels C / 4
    if high_res_features is not None:
        added = high_res_features[1].unflatten(3, (-1, 2)).unflatten(2, (-1, 2))[:, :, rows]
        y += added.permute(0, 2, 4, 3, 5, 1)
    y = functional.gelu(cast("LayerNorm2d", norm).channels_last(y))
    z = _as_product(up2, y.view(-1, y.shape[5]))
    z = z.view(*some.shape[:3], 2, 2, 2, 2, -1)  # channels C / 8
    if high_res_features is not None:
        added = high_res_features[0].unflatten(3, (-1, 2, 2)).unflatten(2, (-1, 2, 2))[:, :, rows]
        z += added.permute(0, 2, 5, 3, 6, 4, 7, 1)
    return functional.gelu(z)


def _as_product(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a 2 x 2 transposed convolution of stride 2 to tokens (n, C): (n, 2 x 2 x C')."""
    conv = cast(nn.ConvTranspose2d, layer)
    return torch.addmm(cast(Tensor, conv.bias).repeat(4), x, conv.weight.permute(0, 2, 3, 1).flatten(1))


# ---- attention between few tokens and many image features. The projection of the features moves to the tokens'
# side, where it is a few small products; scores and weighted sums are of the features themselves.


def folding_pays(attn: Attention, tokens: Tensor) -> bool:
    """Whether fewer operations are left with the projections of the image moved to tokens (N, T, C)."""
    inner, channels = attn.q_proj.weight.shape
    few = tokens.shape[1]
    return on_cpu(tokens) and attn.num_heads * few * channels < (channels + few) * inner


def to_image(attn: Attention, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the attention of tokens (N, T, C) to image keys and values (N, P, C): (N, T, C)."""
    # the bias of the keys adds the same to all scores of a token, which a softmax takes out again
    queries = _scaled_heads(attn, attn.q_proj(tokens)) @ _by_head(attn, attn.k_proj)  # (N, heads, T, C)
    scores = keys @ queries.flatten(1, 2).transpose(
        1, 2
    )  # (N, P, heads x T), faster than the other way round
    weights = scores.transpose(1, 2).softmax(-1)
    mixed = (weights @ values).unflatten(1, (attn.num_heads, -1))  # (N, heads, T, C)
    mixed = mixed @ _by_head(attn, attn.v_proj).transpose(1, 2)  # (N, heads, T, I / heads)
    mixed = mixed + attn.v_proj.bias.unflatten(0, (attn.num_heads, 1, -1))
    out: Tensor = attn.out_proj(mixed.transpose(1, 2).flatten(2))
    return out


def from_image(attn: Attention, features: Tensor, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return image features (N, P, C) plus the attention of their queries to tokens (N, T, C): (N, P, C)."""
    projected = _scaled_heads(attn, attn.k_proj(keys))  # (N, heads, T, I / heads)
    folded = (projected @ _by_head(attn, attn.q_proj)).flatten(1, 2)  # (N, heads x T, C)
    bias = (projected @ attn.q_proj.bias.unflatten(0, (attn.num_heads, -1, 1))).flatten(1)
    v = attn.v_proj(values).unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
    mixed = (v @ attn.out_proj.weight.T.unflatten(0, (attn.num_heads, -1))).flatten(1, 2)  # (N, heads x T, C)
    mixed = mixed + attn.out_proj.bias / attn.num_heads  # each head's weights sum to one
    scores = torch.baddbmm(bias[:, None], queries, folded.transpose(1, 2))  # (N, P, heads x T)
    weights = scores.unflatten(2, (attn.num_heads, -1)).softmax(-1).flatten(2)
    return torch.baddbmm(features, weights, mixed)


def _scaled_heads(attn: Attention, projected: Tensor) -> Tensor:
    """(N, T, I) to (N, heads, T, I / heads), divided by the square root of its channels."""
    heads = projected.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
    scaled: Tensor = heads * float(heads.shape[-1]) ** -0.5
    return scaled


def _by_head(attn: Attention, layer: nn.Linear) -> Tensor:
    """Return a projection's matrix as (heads, I / heads, C)."""
    matrix: Tensor = layer.weight.unflatten(0, (attn.num_heads, -1))
    return matrix
