"""Points, boxes and masks as tokens and maps for the mask decoder. Shared by all families."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_samexp.sam.fast.folding import Cached
from napari_samexp.sam.layers import LayerNorm2d
from napari_samexp.sam.position_encoding import fourier_points

__all__ = ["BACKGROUND", "BOX_END", "BOX_START", "NO_POINT", "OBJECT", "PromptEncoder"]

NO_POINT, BACKGROUND, OBJECT, BOX_START, BOX_END = -1, 0, 1, 2, 3


class PromptEncoder(nn.Module):
    """Prompts to sparse tokens and a dense map.

    Source: `prompt_encoder.py` of segment-anything; box corners are points labelled 2 and 3, as in sam2.
    """

    def __init__(self, channels: int, mask_channels: int = 16) -> None:
        super().__init__()
        self.pe_layer = _PointFrequencies(channels // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, channels) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, channels)
        quarter = mask_channels // 4
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, quarter, 2, stride=2),
            LayerNorm2d(quarter),
            nn.GELU(),
            nn.Conv2d(quarter, mask_channels, 2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, channels, 1),
        )
        self.no_mask_embed = nn.Embedding(1, channels)
        self._grid: Cached[Tensor] = Cached()

    def sparse(self, points_xy: Tensor, labels: Tensor, input_hw: tuple[int, int]) -> Tensor:
        """Return the tokens of points.

        Parameters
        ----------
        points_xy : Tensor, shape (B, N, 2), float32
            Pixels of the model input; (0, 0) is the centre of the first.
        labels : Tensor, shape (B, N), int
            -1 no point, 0 background, 1 object, 2 and 3 a box's two corners.

        Returns
        -------
        Tensor, shape (B, N, C)
        """
        # divided by Python numbers: copying a tensor of them to a GPU would wait for it
        x, y = ((points_xy[..., i] + 0.5) / size for i, size in enumerate(input_hw[::-1]))
        points = torch.stack((x, y), dim=-1)  # (B, N, 2), 0 to 1
        encoded = fourier_points(points, self.pe_layer.positional_encoding_gaussian_matrix)
        # (5, C): no point, background, object, a box's two corners
        tables = torch.cat([table.weight for table in (self.not_a_point_embed, *self.point_embeddings)])
        kind = tables[labels.long() + 1]  # (B, N, C)
        return encoded.to(kind.dtype) * (labels >= 0)[..., None].to(kind.dtype) + kind

    def dense(self, mask_logits: Tensor | None) -> Tensor:
        """(B, 1, 4 h, 4 w) mask logits to (B, C, h, w); without a mask, (1, C, 1, 1)."""
        if mask_logits is None:
            return self.no_mask_embed.weight[:, :, None, None]
        out: Tensor = self.mask_downscaling(mask_logits)
        return out

    def grid(self, grid_hw: tuple[int, int]) -> Tensor:
        """Return the encoding of each position of the image features, (1, C, h, w)."""
        matrix, dtype = self.pe_layer.positional_encoding_gaussian_matrix, self.no_mask_embed.weight.dtype
        return self._grid.get([matrix], lambda: self._encoded(grid_hw, matrix).to(dtype), grid_hw, dtype)

    def _encoded(self, grid_hw: tuple[int, int], matrix: Tensor) -> Tensor:
        y, x = ((torch.arange(n, device=matrix.device, dtype=torch.float32) + 0.5) / n for n in grid_hw)
        points = torch.stack((x[None, :].expand(grid_hw), y[:, None].expand(grid_hw)), dim=-1)
        return fourier_points(points, matrix).permute(2, 0, 1)[None]  # (1, C, h, w)


class _PointFrequencies(nn.Module):
    """Random frequencies; they stay float32 in every dtype, or points would be rounded to coarse steps."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, frequencies))
