"""From image features and prompt tokens to masks, their predicted IoU and, for SAM 2, presence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.layers import Attention, LayerNorm2d, Mlp

__all__ = ["Decoded", "MaskDecoder"]

HEADS = 8
MASKS = 4  # one for unambiguous prompts, then three choices


class Decoded(NamedTuple):
    """What the decoder says of N prompts.

    Parameters
    ----------
    masks : Tensor, shape (N, 4, 4 h, 4 w)
        Logits.
    iou : Tensor, shape (N, 4)
    tokens : Tensor, shape (N, 4, C)
        Mask tokens, from which an object pointer is made.
    presence : Tensor, shape (N,), or None
        Object score logit (SAM 2).
    """

    masks: Tensor
    iou: Tensor
    tokens: Tensor
    presence: Tensor | None


class MaskDecoder(nn.Module):
    """Source: `mask_decoder.py` of segment-anything and sam2.

    Parameters
    ----------
    high_res : bool
        SAM 2: finer features are added while upscaling, presence is predicted, IoU is a sigmoid.
    """

    def __init__(self, channels: int, mlp_dim: int, iou_hidden: int, high_res: bool) -> None:
        super().__init__()
        self.high_res = high_res
        self.transformer = TwoWayTransformer(channels, mlp_dim)
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(MASKS, channels)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 4, 2, stride=2),
            LayerNorm2d(channels // 4),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 4, channels // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Mlp((channels, channels, channels, channels // 8)) for _ in range(MASKS)
        )
        self.iou_prediction_head = Mlp((channels, iou_hidden, iou_hidden, MASKS))
        if high_res:
            self.obj_score_token = nn.Embedding(1, channels)
            self.conv_s0 = nn.Conv2d(channels, channels // 8, 1)
            self.conv_s1 = nn.Conv2d(channels, channels // 4, 1)
            self.pred_obj_score_head = Mlp((channels, channels, channels, 1))

    def forward(
        self,
        features: Tensor,
        grid: Tensor,
        sparse: Tensor,
        dense: Tensor,
        finer: tuple[Tensor, Tensor] | None,
    ) -> Decoded:
        """Decode N prompts.

        Parameters
        ----------
        features : Tensor, shape (N or 1, C, h, w)
        grid : Tensor, shape (1, C, h, w)
            Encoding of the positions.
        sparse : Tensor, shape (N, K, C)
        dense : Tensor, shape (N or 1, C, h or 1, w or 1)
        finer : two Tensors, shapes (N or 1, C / 8, 4 h, 4 w) and (N or 1, C / 4, 2 h, 2 w), or None
        """
        own = [self.iou_token.weight, self.mask_tokens.weight]
        if self.high_res:
            own.insert(0, self.obj_score_token.weight)
        first = len(own) - 1  # index of the first mask token
        tokens = torch.cat((torch.cat(own).expand(len(sparse), -1, -1), sparse), dim=1)
        source = (features + dense).expand(len(sparse), -1, -1, -1)
        out, source_tokens = self.transformer(source, grid, tokens)
        upscaled = self._upscale(source_tokens.transpose(1, 2).unflatten(2, source.shape[-2:]), finer)
        mask_tokens = out[:, first : first + MASKS]
        weights = torch.stack(
            [mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        iou = self.iou_prediction_head(out[:, first - 1])
        return Decoded(
            masks=(weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:]),
            iou=iou.sigmoid() if self.high_res else iou,
            tokens=mask_tokens,
            presence=self.pred_obj_score_head(out[:, 0])[:, 0] if self.high_res else None,
        )

    def _upscale(self, x: Tensor, finer: tuple[Tensor, Tensor] | None) -> Tensor:
        if finer is None:
            out: Tensor = self.output_upscaling(x)
            return out
        up1, norm, act1, up2, act2 = self.output_upscaling
        x = act1(norm(up1(x) + finer[1]))
        last: Tensor = act2(up2(x) + finer[0])
        return last


class TwoWayTransformer(nn.Module):
    """Two layers in which tokens and image features look at each other, and a last look of the tokens."""

    def __init__(self, channels: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_TwoWayLayer(channels, mlp_dim, first=i == 0) for i in range(2))
        self.final_attn_token_to_image = Attention(channels, HEADS, channels // 2)
        self.norm_final_attn = nn.LayerNorm(channels)

    def forward(self, source: Tensor, grid: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w), (1, C, h, w), (N, K, C) to tokens (N, K, C) and features (N, h w, C)."""
        keys, key_pos = (x.flatten(2).transpose(1, 2) for x in (source, grid))
        queries = tokens
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, key_pos)
        last = self.final_attn_token_to_image(queries + tokens, keys + key_pos, keys)
        return self.norm_final_attn(queries + last), keys


class _TwoWayLayer(nn.Module):
    def __init__(self, channels: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(channels, HEADS)
        self.norm1 = nn.LayerNorm(channels)
        self.cross_attn_token_to_image = Attention(channels, HEADS, channels // 2)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp((channels, mlp_dim, channels), functional.relu)
        self.norm3 = nn.LayerNorm(channels)
        self.norm4 = nn.LayerNorm(channels)
        self.cross_attn_image_to_token = Attention(channels, HEADS, channels // 2)

    def forward(
        self, queries: Tensor, keys: Tensor, query_pos: Tensor, key_pos: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.first:  # the tokens are their own position encoding: nothing to add it to yet
            queries = self.self_attn(queries, queries, queries)
        else:
            q = queries + query_pos
            queries = queries + self.self_attn(q, q, queries)
        queries = self.norm1(queries)
        placed = keys + key_pos
        queries = self.norm2(queries + self.cross_attn_token_to_image(queries + query_pos, placed, keys))
        queries = self.norm3(queries + self.mlp(queries))
        return queries, self.norm4(
            keys + self.cross_attn_image_to_token(placed, queries + query_pos, queries)
        )
