"""RepViT with each convolution and its BatchNorm folded into one convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from napari_samexp.sam.fast.folding import Kernel, kernel, on_pixels

if TYPE_CHECKING:
    from napari_samexp.sam.repvit import ChannelMixer, ConvNorm, TokenMixer

__all__ = ["channel_mixer", "conv_norm", "token_mixer"]

CHUNK = 4096  # pixels that a processor's cache holds with all their channels


def conv_norm(layer: ConvNorm, x: Tensor) -> Tensor:
    """Return what `ConvNorm.forward` does: (B, channels, H, W) to (B, out, h, w)."""
    conv, folded = layer.c, _folded(layer)
    if conv.kernel_size == (1, 1) and conv.groups == 1:
        return on_pixels(x.permute(0, 2, 3, 1), folded).permute(0, 3, 1, 2)
    return functional.conv2d(x, *folded, conv.stride, conv.padding, groups=conv.groups)


def token_mixer(mixer: TokenMixer, x: Tensor) -> Tensor:
    """Return what `TokenMixer.forward` does; both convolutions and the identity are one 3 x 3 convolution."""

    def fold() -> Kernel:
        (wide, bias), (point, point_bias) = _fold(mixer.conv), _fold(mixer.conv1)
        wide[:, :, 1:2, 1:2] += point + 1
        return kernel(wide, bias + point_bias, mixer.conv.c.weight.dtype)

    weight, bias = mixer.folded.get(_tensors(mixer.conv) + _tensors(mixer.conv1), fold)
    return functional.conv2d(x, weight, bias, padding=1, groups=len(weight))


def channel_mixer(mixer: ChannelMixer, x: Tensor) -> Tensor:
    """Return what `ChannelMixer.forward` does, on a CPU a chunk of the pixels at a time."""
    pixels = x.permute(0, 2, 3, 1).flatten(0, 2)  # (B x H x W, C)
    out = torch.empty_like(pixels)
    size = CHUNK if x.device.type == "cpu" else len(pixels)
    for chunk, into in zip(pixels.split(size), out.split(size)):
        hidden = functional.gelu(on_pixels(chunk, _folded(mixer.conv1)))
        torch.add(chunk, on_pixels(hidden, _folded(mixer.conv2)), out=into)
    return out.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


def _tensors(layer: ConvNorm) -> list[Tensor]:
    """Return the tensors that the result depends on, the convolution's first."""
    norm = layer.bn
    assert norm.running_mean is not None and norm.running_var is not None
    return [layer.c.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var]


def _folded(layer: ConvNorm) -> Kernel:
    return layer.folded.get(_tensors(layer), lambda: kernel(*_fold(layer), layer.c.weight.dtype))


def _fold(layer: ConvNorm) -> Kernel:
    """Return weight and bias of the one convolution, float64."""
    conv, gain, bias, mean, variance = (tensor.double() for tensor in _tensors(layer))
    scale = gain / (variance + layer.bn.eps).sqrt()
    return conv * scale[:, None, None, None], bias - mean * scale
