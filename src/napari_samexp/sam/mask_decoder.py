"""From image features and prompt tokens to masks, their predicted IoU and, for SAM 2, presence."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.layers import Attention, LayerNorm2d, Mlp, is_chunked, split_heads

__all__ = ["Decoded", "MaskDecoder"]

HEADS = 8
MASKS = 4  # one for unambiguous prompts, then three choices
BAND = 512  # tokens that are upscaled at a time on a CPU


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
        own = [self.iou_token.weight, self.mask_tokens.weight]
        if self.high_res:
            own.insert(0, self.obj_score_token.weight)
        first = len(own) - 1  # index of the first mask token
        tokens = torch.cat((torch.cat(own).expand(len(sparse), -1, -1), sparse), dim=1)
        source = (features + dense).expand(len(sparse), -1, -1, -1)
        out, source_tokens = self.transformer(source, grid, tokens)
        mask_tokens = out[:, first : first + MASKS]
        weights = torch.stack(
            [mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        iou = self.iou_prediction_head(out[:, first - 1])
        return Decoded(
            masks=self._masks(source_tokens.unflatten(1, source.shape[-2:]), high_res_features, weights),
            iou=iou.sigmoid() if self.high_res else iou,
            tokens=mask_tokens,
            presence=self.pred_obj_score_head(out[:, 0])[:, 0] if self.high_res else None,
        )

    def _masks(self, x: Tensor, high_res_features: tuple[Tensor, Tensor] | None, weights: Tensor) -> Tensor:
        """(N, h, w, C) features and (N, 4, C / 8) weights to (N, 4, 4 h, 4 w) masks."""
        if is_chunked(x):
            return self._masks_in_bands(x, high_res_features, weights)
        upscaled = self._upscale(x.permute(0, 3, 1, 2), high_res_features)
        masks: Tensor = (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
        return masks

    def _upscale(self, x: Tensor, high_res_features: tuple[Tensor, Tensor] | None) -> Tensor:
        if high_res_features is None:
            out: Tensor = self.output_upscaling(x)
            return out
        up1, norm, act1, up2, act2 = self.output_upscaling
        x = act1(norm(up1(x) + high_res_features[1]))
        last: Tensor = act2(up2(x) + high_res_features[0])
        return last

    def _masks_in_bands(
        self, x: Tensor, high_res_features: tuple[Tensor, Tensor] | None, weights: Tensor
    ) -> Tensor:
        """Return what `_masks` does, some rows at a time, so that what lies between stays in the processor's cache.

        Each token becomes 2 x 2 and each of these 2 x 2 again, as further axes of the array, channels last: both
        transposed convolutions are matrix products, and only the masks are put in the order of pixels.
        """
        count, height, width, _ = x.shape
        up1, norm, _, up2, _ = self.output_upscaling
        (into_1, bias_1), (into_2, bias_2) = (_as_product(cast(nn.ConvTranspose2d, up)) for up in (up1, up2))
        last = cast(LayerNorm2d, norm).on_last
        out = x.new_empty(count, MASKS, height, 4, width, 4)
        step = max(1, BAND // (count * width))
        for top in range(0, height, step):
            rows = slice(top, top + step)
            some = x[:, rows]
            y = torch.addmm(bias_1, some.reshape(-1, some.shape[3]), into_1)
            y = y.view(*some.shape[:3], 2, 2, -1)  # channels C / 4
            if high_res_features is not None:
                more = high_res_features[1].unflatten(3, (-1, 2)).unflatten(2, (-1, 2))[:, :, rows]
                y += more.permute(0, 2, 4, 3, 5, 1)
            y = functional.gelu(last(y))
            z = torch.addmm(bias_2, y.view(-1, y.shape[5]), into_2)
            z = z.view(*some.shape[:3], 2, 2, 2, 2, -1)  # channels C / 8
            if high_res_features is not None:
                more = high_res_features[0].unflatten(3, (-1, 2, 2)).unflatten(2, (-1, 2, 2))[:, :, rows]
                z += more.permute(0, 2, 5, 3, 6, 4, 7, 1)
            masks = functional.gelu(z).view(count, -1, z.shape[-1]) @ weights.transpose(1, 2)
            placed = masks.view(*z.shape[:-1], MASKS).permute(0, 7, 1, 3, 5, 2, 4, 6)
            out[:, :, rows].unflatten(5, (2, 2)).unflatten(3, (2, 2)).copy_(placed)
        return out.flatten(4, 5).flatten(2, 3)


def _as_product(layer: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Return a 2 x 2 transposed convolution of stride 2 as a matrix (C, 4 C') and four times its bias (4 C')."""
    return layer.weight.permute(0, 2, 3, 1).flatten(1), cast(Tensor, layer.bias).repeat(4)


class _ImageAttention(Attention):
    """Attention between few tokens and the many features of an image.

    On a CPU what projects the image's features goes to the tokens' side, where it is a few small products: of the
    features themselves, scores take half the work, and so does what they are weighed to.
    """

    def of_image(self, tokens: Tensor, placed: Tensor, features: Tensor) -> Tensor:
        """Let tokens (N, T, C) look at features (N, P, C), with places for keys and without them for values: (N, T, C)."""
        if not self._pays(tokens):
            out: Tensor = self(tokens, placed, features)
            return out
        # a key's bias adds the same to all scores of a token
        asked = self._queries(self.q_proj(tokens)) @ self._by_head(self.k_proj)
        scores = placed @ asked.flatten(1, 2).transpose(1, 2)  # faster so than the other way round
        weights = scores.transpose(1, 2).softmax(-1)
        seen = (weights @ features).unflatten(1, (self.num_heads, -1))
        values = seen @ self._by_head(self.v_proj).transpose(1, 2)
        values = values + self.v_proj.bias.unflatten(0, (self.num_heads, 1, -1))
        out = self.out_proj(values.transpose(1, 2).flatten(2))
        return out

    def of_tokens(self, features: Tensor, placed: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
        """Add to features (N, P, C) what they see, from their places, of tokens (N, T, C): (N, P, C)."""
        if not self._pays(tokens):
            out: Tensor = features + self(placed, tokens, values)
            return out
        keys = self._queries(self.k_proj(tokens))
        asked = (keys @ self._by_head(self.q_proj)).flatten(1, 2)
        always = (keys @ self.q_proj.bias.unflatten(0, (self.num_heads, -1, 1))).flatten(1)
        seen = split_heads(self.v_proj(values), self.num_heads)
        seen = (seen @ self.out_proj.weight.T.unflatten(0, (self.num_heads, -1))).flatten(1, 2)
        seen = seen + self.out_proj.bias / self.num_heads  # each head's weights sum to one
        scores = torch.baddbmm(always[:, None], placed, asked.transpose(1, 2))
        weights = scores.unflatten(2, (self.num_heads, -1)).softmax(-1).flatten(2)
        return torch.baddbmm(features, weights, seen)

    def _pays(self, tokens: Tensor) -> bool:
        inner, channels = self.q_proj.weight.shape
        few = tokens.shape[1]
        return is_chunked(tokens) and self.num_heads * few * channels < (channels + few) * inner

    def _queries(self, projected: Tensor) -> Tensor:
        """(N, T, I) to (N, heads, T, I / heads), scaled."""
        scale: float = (projected.shape[-1] // self.num_heads) ** -0.5
        return split_heads(projected, self.num_heads) * scale

    def _by_head(self, layer: nn.Linear) -> Tensor:
        """Return a projection's matrix as (heads, I / heads, C)."""
        matrix: Tensor = layer.weight.unflatten(0, (self.num_heads, -1))
        return matrix


class TwoWayTransformer(nn.Module):
    """Two layers in which tokens and image features look at each other, and a last look of the tokens."""

    def __init__(self, channels: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_TwoWayLayer(channels, mlp_dim, first=i == 0) for i in range(2))
        self.final_attn_token_to_image = _ImageAttention(channels, HEADS, channels // 2)
        self.norm_final_attn = nn.LayerNorm(channels)

    def forward(self, source: Tensor, grid: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w), (1, C, h, w), (N, K, C) to tokens (N, K, C) and features (N, h w, C)."""
        keys, key_pos = (x.flatten(2).transpose(1, 2).contiguous() for x in (source, grid))
        queries = tokens
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, key_pos)
        last = self.final_attn_token_to_image.of_image(queries + tokens, keys + key_pos, keys)
        return self.norm_final_attn(queries + last), keys


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
        if self.first:  # the tokens are their own position encoding: nothing to add it to yet
            queries = self.self_attn(queries, queries, queries)
        else:
            q = queries + query_pos
            queries = queries + self.self_attn(q, q, queries)
        queries = self.norm1(queries)
        placed = keys + key_pos
        seen = self.cross_attn_token_to_image.of_image(queries + query_pos, placed, keys)
        queries = self.norm2(queries + seen)
        queries = self.norm3(queries + self.mlp(queries))
        keys = self.cross_attn_image_to_token.of_tokens(keys, placed, queries + query_pos, queries)
        return queries, self.norm4(keys)
