"""From image features and prompt tokens to masks, their predicted IoU and, for SAM 2, presence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.fast import decoder as fast_decoder
from napari_samexp.sam.fast import on_cpu
from napari_samexp.sam.layers import Attention, LayerNorm2d, Mlp

__all__ = ["Decoded", "MaskDecoder"]

HEADS = 8
MASKS = 4  # one for unambiguous prompts, then three choices


class Decoded(NamedTuple):
    """The decoder's output for N prompts.

    Parameters
    ----------
    masks : Tensor, shape (N, 4, 4 h, 4 w)
        Logits.
    iou : Tensor, shape (N, 4)
    tokens : Tensor, shape (N, 4, C)
        Mask tokens, from which object pointers are made.
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
        SAM 2: high-resolution features are added while upscaling, presence is predicted, IoU is a sigmoid.
    """

    def __init__(self, channels: int, mlp_dim: int, iou_hidden: int, high_res: bool) -> None:
        super().__init__()
        self.high_res = high_res
        self.transformer = TwoWayTransformer(channels, mlp_dim)
        # learned output tokens: IoU, four masks and, in SAM 2, presence
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(MASKS, channels)
        # from stride 16 to stride 4
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 4, 2, stride=2),
            LayerNorm2d(channels // 4),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 4, channels // 8, 2, stride=2),
            nn.GELU(),
        )
        # a mask token to the weights of its mask's channels
        self.output_hypernetworks_mlps = nn.ModuleList(
            Mlp((channels, channels, channels, channels // 8)) for _ in range(MASKS)
        )
        self.iou_prediction_head = Mlp((channels, iou_hidden, iou_hidden, MASKS))
        if high_res:
            self.obj_score_token = nn.Embedding(1, channels)
            # project the high-resolution features; run once an image, by the model
            self.conv_s0 = nn.Conv2d(channels, channels // 8, 1)
            self.conv_s1 = nn.Conv2d(channels, channels // 4, 1)
            self.pred_obj_score_head = Mlp((channels, channels, channels, 1))

    def forward(
        self,
        features: Tensor,
        grid: Tensor,
        sparse: Tensor,
        dense: Tensor,
        high_res_features: tuple[Tensor, Tensor] | None,
    ) -> Decoded:
        """Decode N prompts.

        Parameters
        ----------
        features : Tensor, shape (N or 1, C, h, w)
        grid : Tensor, shape (1, C, h, w)
            Encoding of the positions.
        sparse : Tensor, shape (N, K, C)
        dense : Tensor, shape (N or 1, C, h or 1, w or 1)
        high_res_features : two Tensors, shapes (N or 1, C / 8, 4 h, 4 w) and (N or 1, C / 4, 2 h, 2 w), or None
        """
        output_tokens = [self.iou_token.weight, self.mask_tokens.weight]
        if self.high_res:
            output_tokens.insert(0, self.obj_score_token.weight)
        first = len(output_tokens) - 1  # index of the first mask token
        # (N, [presence,] IoU, 4 masks, K prompts; C)
        tokens = torch.cat((torch.cat(output_tokens).expand(len(sparse), -1, -1), sparse), dim=1)
        source = (features + dense).expand(len(sparse), -1, -1, -1)  # (N, C, h, w)
        out, keys = self.transformer(source, grid, tokens)
        mask_tokens = out[:, first : first + MASKS]  # (N, 4, C)
        weights = torch.stack(
            [mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )  # (N, 4, C / 8)
        iou = self.iou_prediction_head(out[:, first - 1])  # (N, 4)
        return Decoded(
            masks=self._masks(keys.unflatten(1, source.shape[-2:]), high_res_features, weights),
            iou=iou.sigmoid() if self.high_res else iou,
            tokens=mask_tokens,
            presence=self.pred_obj_score_head(out[:, 0])[:, 0] if self.high_res else None,
        )

    def _masks(self, x: Tensor, high_res_features: tuple[Tensor, Tensor] | None, weights: Tensor) -> Tensor:
        """(N, h, w, C) features and (N, 4, C / 8) weights to (N, 4, 4 h, 4 w) masks."""
        if on_cpu(x):
            return fast_decoder.masks_in_bands(self, x, high_res_features, weights)
        up1, norm, act1, up2, act2 = self.output_upscaling
        x = up1(x.permute(0, 3, 1, 2))  # (N, C / 4, 2 h, 2 w)
        if high_res_features is not None:
            x = x + high_res_features[1]
        x = up2(act1(norm(x)))  # (N, C / 8, 4 h, 4 w)
        if high_res_features is not None:
            x = x + high_res_features[0]
        x = act2(x)
        masks: Tensor = (weights @ x.flatten(2)).unflatten(2, x.shape[-2:])
        return masks


class _ImageAttention(Attention):
    """Cross-attention between few tokens and the many features of an image."""

    def to_image(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return the attention of tokens (N, T, C) to the image's keys and values (N, P, C): (N, T, C)."""
        if fast_decoder.folding_pays(self, tokens):
            return fast_decoder.to_image(self, tokens, keys, values)
        out: Tensor = self(tokens, keys, values)
        return out

    def from_image(self, features: Tensor, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return features (N, P, C) plus the attention of their queries to tokens (N, T, C)."""
        if fast_decoder.folding_pays(self, keys):
            return fast_decoder.from_image(self, features, queries, keys, values)
        out: Tensor = features + self(queries, keys, values)
        return out


class TwoWayTransformer(nn.Module):
    """Two layers of attention between tokens and image, both ways, and a last attention of the tokens to the image."""

    def __init__(self, channels: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_TwoWayLayer(channels, mlp_dim, first=i == 0) for i in range(2))
        self.final_attn_token_to_image = _ImageAttention(channels, HEADS, channels // 2)
        self.norm_final_attn = nn.LayerNorm(channels)

    def forward(self, source: Tensor, grid: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w), (1, C, h, w), (N, K, C) to tokens (N, K, C) and features (N, h w, C)."""
        # (N, h w, C), (1, h w, C)
        keys, key_pos = (x.flatten(2).transpose(1, 2).contiguous() for x in (source, grid))
        queries = tokens
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, key_pos)
        attended = self.final_attn_token_to_image.to_image(queries + tokens, keys + key_pos, keys)
        return self.norm_final_attn(queries + attended), keys


class _TwoWayLayer(nn.Module):
    def __init__(self, channels: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(channels, HEADS)
        self.norm1 = nn.LayerNorm(channels)
        self.cross_attn_token_to_image = _ImageAttention(channels, HEADS, channels // 2)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp((channels, mlp_dim, channels), functional.relu)
        self.norm3 = nn.LayerNorm(channels)
        self.norm4 = nn.LayerNorm(channels)
        self.cross_attn_image_to_token = _ImageAttention(channels, HEADS, channels // 2)

    def forward(
        self, queries: Tensor, keys: Tensor, query_pos: Tensor, key_pos: Tensor
    ) -> tuple[Tensor, Tensor]:
        # 1. the tokens attend to each other; in the first layer they are their own position encoding
        if self.first:
            queries = self.self_attn(queries, queries, queries)
        else:
            q = queries + query_pos
            queries = queries + self.self_attn(q, q, queries)
        queries = self.norm1(queries)
        # 2. the tokens attend to the image
        image_keys = keys + key_pos
        attended = self.cross_attn_token_to_image.to_image(queries + query_pos, image_keys, keys)
        queries = self.norm2(queries + attended)
        # 3. each token goes through an MLP
        queries = self.norm3(queries + self.mlp(queries))
        # 4. the image attends to the tokens
        keys = self.cross_attn_image_to_token.from_image(keys, image_keys, queries + query_pos, queries)
        return queries, self.norm4(keys)
