"""EdgeTAM's image encoder: the RepViT trunk, which has convolutions alone, and the feature pyramid neck.

Maps are (B, C, H, W), in memory with the channels last: most of the work is 1 x 1 convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam import fast
from napari_samexp.sam.fast import hiera as fast_hiera
from napari_samexp.sam.fast import repvit as fast_repvit
from napari_samexp.sam.fast.folding import Cached, Kernel, folds
from napari_samexp.sam.hiera import Levels, Neck
from napari_samexp.sam.variants import EdgeTamVariant

__all__ = ["ChannelMixer", "ConvNorm", "RepVit", "RepVitEncoder", "TokenMixer"]

STAGES = 4
EXPANSION = 2  # of the channels, within a channel mixer


class RepVitEncoder(nn.Module):
    """(B, 3, H, W) pixels to features at strides 4, 8 and 16, each with `d_model` channels.

    Source: `image_encoder.py` and `timm.py` of EdgeTAM; it has no position encoding anywhere.
    """

    def __init__(self, variant: EdgeTamVariant) -> None:
        super().__init__()
        self.trunk = _Trunk(variant)
        self.neck = Neck(variant.embed_dim, variant.d_model)

    def forward(self, pixels: Tensor) -> Levels:
        """(B, 3, H, W) to three (B, d_model, h, w), fine to coarse."""
        out: Levels = self.neck(self.trunk(pixels))
        return out

    def decoder_features(self, pixels: Tensor, convs: Sequence[nn.Conv2d]) -> Levels:
        """Return the levels, the first two after the mask decoder's 1 x 1 convolutions, one each."""
        if fast.is_enabled():
            return fast_hiera.neck_features(self.neck, self.trunk(pixels), convs)
        s4, s8, s16 = self(pixels)
        return convs[0](s4), convs[1](s8), s16


class _Trunk(nn.Module):
    def __init__(self, variant: EdgeTamVariant) -> None:
        super().__init__()
        self.body = RepVit(variant)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to four (B, h, w, C) maps at strides 4, 8, 16 and 32, as Hiera gives them."""
        return [x.permute(0, 2, 3, 1) for x in self.body(pixels)]


class RepVit(nn.Module):
    """The trunk: a stem at stride 4 and four stages, each at half the resolution of the one before.

    Source: `repvit.py` of timm 1.0.15, as EdgeTAM calls it (`repvit_m1`).
    """

    def __init__(self, variant: EdgeTamVariant) -> None:
        super().__init__()
        self.stem = _Stem(variant.embed_dim)
        for i, depth in enumerate(variant.stages):
            self.add_module(f"stages_{i}", _Stage(variant.embed_dim * 2**i, depth, first=i == 0))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to four (B, C, h, w) maps."""
        x = self.stem(pixels.contiguous(memory_format=torch.channels_last))  # (B, C, H / 4, W / 4)
        outputs = []
        for i in range(STAGES):
            x = self.get_submodule(f"stages_{i}")(x)
            outputs.append(x)
        return outputs


class ConvNorm(nn.Module):
    """A convolution without bias and a BatchNorm.

    Parameters
    ----------
    kernel : int
        Side of the kernel; the map is padded so that only the stride makes it smaller.
    groups : int
        1, or as many as channels for a depthwise convolution.
    """

    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.folded: Cached[Kernel] = Cached()

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, out, h, w)."""
        if folds(self, x):
            return fast_repvit.conv_norm(self, x)
        out: Tensor = self.bn(self.c(x))
        return out


class _Stem(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, channels // 2, 3, stride=2)
        self.conv2 = ConvNorm(channels // 2, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(functional.gelu(self.conv1(x)))  # (B, C, H / 4, W / 4)
        return out


class _Stage(nn.Module):
    def __init__(self, channels: int, depth: int, first: bool) -> None:
        super().__init__()
        self.downsample = nn.Identity() if first else _Downsample(channels // 2, channels)
        self.blocks = nn.Sequential(*(_Block(channels, excited=i % 2 == 0) for i in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.downsample(x))
        return out


class _Downsample(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.pre_block = _Block(channels, excited=False)
        self.spatial_downsample = ConvNorm(channels, channels, 3, stride=2, groups=channels)
        self.channel_downsample = ConvNorm(channels, out)
        self.ffn = ChannelMixer(out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.ffn(self.channel_downsample(self.spatial_downsample(self.pre_block(x))))
        return out


class _Block(nn.Module):
    def __init__(self, channels: int, excited: bool) -> None:
        super().__init__()
        self.token_mixer = TokenMixer(channels)
        self.se = _SqueezeExcite(channels) if excited else nn.Identity()
        self.channel_mixer = ChannelMixer(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.channel_mixer(self.se(self.token_mixer(x)))
        return out


class TokenMixer(nn.Module):
    """A depthwise 3 x 3 and a depthwise 1 x 1 convolution beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, 3, groups=channels)
        self.conv1 = ConvNorm(channels, channels, 1, groups=channels)
        self.folded: Cached[Kernel] = Cached()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        if folds(self, x):
            return fast_repvit.token_mixer(self, x)
        out: Tensor = self.conv(x) + self.conv1(x) + x
        return out


class ChannelMixer(nn.Module):
    """Two 1 x 1 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, EXPANSION * channels)
        self.conv2 = ConvNorm(EXPANSION * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        if folds(self, x):
            return fast_repvit.channel_mixer(self, x)
        out: Tensor = x + self.conv2(functional.gelu(self.conv1(x)))
        return out


class _SqueezeExcite(nn.Module):
    """Each channel is scaled by a function of the channels' means over the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, (channels // 4 + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.fc2(functional.relu(self.fc1(x.mean((2, 3), keepdim=True))))  # (B, C, 1, 1)
        return x * weights.sigmoid()
