"""EdgeTAM's image encoder: the RepViT trunk, convolutions alone, and the feature pyramid neck.

Maps are (B, C, H, W), in memory with the channels last: most of the work is 1 x 1 convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_samexp.sam.fast.folding import Kept, Kernel, is_trained, kernel, on_pixels
from napari_samexp.sam.hiera import Neck
from napari_samexp.sam.variants import EdgeTamVariant

__all__ = ["ConvNorm", "RepVit", "RepVitEncoder"]

STAGES = 4
EXPANSION = 2  # of the channels, in the middle of a channel mixer
PIECE = 4096  # pixels that a processor's cache holds with all their channels


class RepVitEncoder(nn.Module):
    """(B, 3, H, W) pixels to features at strides 4, 8 and 16, each with `d_model` channels.

    Source: `image_encoder.py` and `timm.py` of EdgeTAM; it has no position encoding anywhere.
    """

    def __init__(self, variant: EdgeTamVariant) -> None:
        super().__init__()
        self.trunk = _Trunk(variant)
        self.neck = Neck(variant.embed_dim, variant.d_model)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) to three (B, d_model, h, w), fine to coarse."""
        out: tuple[Tensor, Tensor, Tensor] = self.neck(self.trunk(pixels))
        return out

    def through(self, pixels: Tensor, then: Sequence[nn.Conv2d]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `forward` does, the two finer levels after one more 1 x 1 convolution each."""
        return self.neck.through(self.trunk(pixels), then)


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
        x = self.stem(pixels.contiguous(memory_format=torch.channels_last))
        outputs = []
        for i in range(STAGES):
            x = self.get_submodule(f"stages_{i}")(x)
            outputs.append(x)
        return outputs


class ConvNorm(nn.Module):
    """A convolution without bias and a BatchNorm, computed as one convolution where nothing is trained.

    Parameters
    ----------
    kernel : int
        Side of the kernel; the map is padded so that only the stride makes it smaller.
    groups : int
        1, or as many as channels where each is convolved alone.
    """

    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self._kept: Kept[Kernel] = Kept()

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, out, h, w)."""
        if is_trained(self, x):
            trained: Tensor = self.bn(self.c(x))
            return trained
        conv, folded = self.c, self.folded()
        if conv.kernel_size == (1, 1) and conv.groups == 1:
            return on_pixels(x.permute(0, 2, 3, 1), folded).permute(0, 3, 1, 2)
        return functional.conv2d(x, *folded, conv.stride, conv.padding, groups=conv.groups)

    @property
    def made_of(self) -> list[Tensor]:
        """The tensors that the result depends on, the convolution's first."""
        norm = self.bn
        assert norm.running_mean is not None and norm.running_var is not None
        return [self.c.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var]

    def folded(self) -> Kernel:
        """Return weight and bias of the one convolution, in the type of the parameters."""
        return self._kept.of(self.made_of, lambda: kernel(*self.fold(), self.c.weight.dtype))

    def fold(self) -> Kernel:
        """Compute weight and bias of the one convolution, float64."""
        conv, gain, bias, mean, variance = (tensor.double() for tensor in self.made_of)
        scale = gain / (variance + self.bn.eps).sqrt()
        return conv * scale[:, None, None, None], bias - mean * scale


class _Stem(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, channels // 2, 3, stride=2)
        self.conv2 = ConvNorm(channels // 2, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(functional.gelu(self.conv1(x)))
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
        self.ffn = _ChannelMixer(out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.ffn(self.channel_downsample(self.spatial_downsample(self.pre_block(x))))
        return out


class _Block(nn.Module):
    def __init__(self, channels: int, excited: bool) -> None:
        super().__init__()
        self.token_mixer = _TokenMixer(channels)
        self.se = _SqueezeExcite(channels) if excited else nn.Identity()
        self.channel_mixer = _ChannelMixer(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.channel_mixer(self.se(self.token_mixer(x)))
        return out


class _TokenMixer(nn.Module):
    """Every channel alone: a 3 x 3 and a 1 x 1 convolution and the map itself, which are one convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, 3, groups=channels)
        self.conv1 = ConvNorm(channels, channels, 1, groups=channels)
        self._kept: Kept[Kernel] = Kept()

    def forward(self, x: Tensor) -> Tensor:
        if is_trained(self, x):
            trained: Tensor = self.conv(x) + self.conv1(x) + x
            return trained
        weight, bias = self._kept.of(self.conv.made_of + self.conv1.made_of, self._fold)
        return functional.conv2d(x, weight, bias, padding=1, groups=len(weight))

    def _fold(self) -> Kernel:
        (wide, bias), (point, point_bias) = self.conv.fold(), self.conv1.fold()
        wide[:, :, 1:2, 1:2] += point + 1
        return kernel(wide, bias + point_bias, self.conv.c.weight.dtype)


class _ChannelMixer(nn.Module):
    """Every pixel alone: two layers and the map itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, EXPANSION * channels)
        self.conv2 = ConvNorm(EXPANSION * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        if is_trained(self, x):
            trained: Tensor = x + self.conv2(functional.gelu(self.conv1(x)))
            return trained
        pixels = x.permute(0, 2, 3, 1).flatten(0, 2)
        mixed = torch.empty_like(pixels)
        piece = PIECE if x.device.type == "cpu" else len(pixels)
        for part, into in zip(pixels.split(piece), mixed.split(piece)):
            hidden = functional.gelu(on_pixels(part, self.conv1.folded()))
            torch.add(part, on_pixels(hidden, self.conv2.folded()), out=into)
        return mixed.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


class _SqueezeExcite(nn.Module):
    """Each channel is weighed by what the whole map holds of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, (channels // 4 + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.fc2(functional.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * weights.sigmoid()
