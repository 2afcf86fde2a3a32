"""A position encoding as something to look at: values, norm, similarity, frequencies. Needs numpy only."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_samexp.errors import SettingsError
from napari_samexp.io.atomic import absolute_path, os_errors_as_store_errors, write_atomic
from napari_samexp.sam.encoding_spec import Kind

__all__ = ["FORMATS", "PosencMap", "frequency_order", "require_format"]

FORMATS = (".npy", ".tif", ".tiff", ".png")
PERCENT = (1.0, 99.0)  # of the values, from dark to bright; a few loud tokens would leave the rest one colour
_SAMPLE = 2**16  # values that percentiles of a large map are taken from

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PosencMap:
    """A position encoding of one model on one grid.

    Parameters
    ----------
    values : array, shape (C, h, w), float32
    model : str
    part : str
        Such as ``"absolute"``; see `EncodingSpec`.
    grid_hw : (int, int)
        The grid of tokens that it was computed for. The map itself has as many places, but for relative
        positions, which have 2 h - 1 by 2 w - 1.
    window_tile : bool
        Whether SAM 2's tiled window table is in it.
    dtype : str
        The type that it was computed in, and with ``"-error"``, that it is what rounding does.
    kind : "tokens", "offsets" or "frames"
        What a place is: a token, a key seen from its query, or a time.
    weights : str
        The file's name.

    Raises
    ------
    SettingsError
        If the values are not three-dimensional.
    """

    values: Floats
    model: str = ""
    part: str = "absolute"
    grid_hw: tuple[int, int] = (0, 0)
    window_tile: bool = True
    dtype: str = "float32"
    kind: Kind = "tokens"
    weights: str = ""

    def __post_init__(self) -> None:
        values = np.asarray(self.values, np.float32)
        if values.ndim != 3 or values.size == 0:
            raise SettingsError(f"The map has shape {values.shape}; expected (C, h, w).")
        object.__setattr__(self, "values", values)
        if self.grid_hw == (0, 0):
            object.__setattr__(self, "grid_hw", values.shape[1:])

    @property
    def channels(self) -> int:
        """How many channels there are."""
        return int(self.values.shape[0])

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of the map."""
        return self.values.shape[1], self.values.shape[2]

    @property
    def title(self) -> str:
        """Model, part, grid and type in a few words."""
        height, width = self.grid_hw
        tile = "" if self.window_tile else ", no window tile"
        return f"{self.model} · {self.part}{tile} · {height} × {width} · {self.dtype}"

    def channel(self, index: int) -> Floats:
        """Return one channel, (h, w); `SettingsError` if there is none of that number."""
        if not 0 <= index < self.channels:
            raise SettingsError(f"There is no channel {index}; the map has {self.channels}, from 0.")
        values: Floats = self.values[index]
        return values

    def norm(self) -> Floats:
        """Return the L2 norm of every token, (h, w)."""
        return self._norm

    @cached_property
    def _norm(self) -> Floats:
        squares = np.zeros(self.hw, np.float32)
        for channel in self.values:  # a channel at a time stays in the processor's cache
            squares += channel * channel
        return np.sqrt(squares)

    def similarity(self, y: int, x: int) -> Floats:
        """Return the cosine similarity of every token to the one at (y, x), (h, w), from -1 to 1.

        Where a norm is 0 the similarity is 0.

        Raises
        ------
        SettingsError
            If (y, x) is not in the map.
        """
        height, width = self.hw
        if not (0 <= y < height and 0 <= x < width):
            raise SettingsError(f"There is no place ({y}, {x}) in a map of {height} x {width}.")
        # not the faster @: its threads would wait for each other whenever the machine has other work
        products = np.einsum("c,cn->n", self.values[:, y, x], self.values.reshape(self.channels, -1))
        sizes = self.norm() * self.norm()[y, x]
        out = np.zeros(self.hw, np.float32)
        np.divide(products.reshape(self.hw), sizes, out=out, where=sizes > 0)
        return np.clip(out, -1, 1, out=out)

    def limits(self, channel: int | None = None) -> tuple[float, float]:
        """Return the values for dark and bright: the 1st and 99th percentile of all channels or of one.

        Those of a large map are estimated from every n-th value. They always differ.
        """
        return self._limits if channel is None else _percentiles(self.channel(channel))

    def norm_limits(self) -> tuple[float, float]:
        """Return the values of the norm for dark and bright, as `limits` does for the channels."""
        return _percentiles(self.norm())

    @cached_property
    def _limits(self) -> tuple[float, float]:
        return _percentiles(self.values)

    def spectrum(self, channel: int) -> Floats:
        """Return the 2-D Fourier magnitude of a channel without its mean, (h, w), frequency 0 in the middle."""
        values = self.channel(channel)
        transform = np.fft.fft2(values - values.mean())
        return np.abs(np.fft.fftshift(transform)).astype(np.float32)

    def frequencies(self) -> Floats:
        """Return each channel's dominant frequency, (C,): that of its strongest Fourier component.

        The unit is cycles across the map, over height and width together: (fy² + fx²)^½. A channel that is
        the same everywhere has 0.
        """
        height, width = self.hw
        fy = np.fft.fftfreq(height, 1 / height)[:, None]
        fx = np.fft.rfftfreq(width, 1 / width)[None]
        radius = np.hypot(fy, fx).ravel()
        out = np.zeros(self.channels, np.float32)
        for index, values in enumerate(self.values):
            size = np.abs(np.fft.rfft2(values - values.mean())).ravel()
            size[0] = 0
            strongest = int(size.argmax())
            quiet = size[strongest] <= 1e-6 * values.size * np.abs(values).max()  # nothing but rounding
            out[index] = 0 if quiet else radius[strongest]
        return out

    def place(self, y: int, x: int) -> str:
        """Return what people call a place of the map."""
        if self.kind == "offsets":
            down, right = y - self.hw[0] // 2, x - self.hw[1] // 2
            return f"key at ({down:+d}, {right:+d})"
        if self.kind == "frames":
            return "the prior" if x == self.hw[1] - 1 else f"{x + 1} back"
        return f"token ({y}, {x})"

    # ---- files

    def save(
        self,
        path: str | Path,
        *,
        channels: Sequence[int] | None = None,
        per_channel: bool = False,
    ) -> None:
        """Write the map: .npy (the array), .tif (an ImageJ stack with metadata), or .png (a contact sheet).

        Parameters
        ----------
        channels : sequence of int, optional
            Which channels, in which order; by default all, and 24 evenly spaced ones on a contact sheet.
        per_channel : bool
            Whether each channel of a contact sheet has contrast of its own.

        Raises
        ------
        SettingsError
            If the ending is another, or a channel does not exist.
        StoreError
            If the file cannot be written; an older one is kept then.
        """
        target = absolute_path(path)
        ending = require_format(target)
        if ending == ".png":
            from napari_samexp.posenc.sheet import save_sheet  # and Pillow, which few need

            save_sheet(target, [self], channels=channels, per_channel=per_channel)
            return
        chosen = self.values if channels is None else np.stack([self.channel(c) for c in channels])
        data = io.BytesIO()
        if ending == ".npy":
            np.save(data, chosen)
        else:
            self._write_tiff(data, chosen, channels)
        with os_errors_as_store_errors("write the map", target):
            write_atomic(target, data.getvalue())

    @property
    def facts(self) -> dict[str, Any]:
        """What the map is, for files."""
        return {
            "model": self.model,
            "weights": self.weights,
            "part": self.part,
            "grid": list(self.grid_hw),
            "window_tile": self.window_tile,
            "dtype": self.dtype,
            "shape": list(self.values.shape),
            "kind": self.kind,
        }

    def _write_tiff(self, data: io.BytesIO, chosen: Floats, channels: Sequence[int] | None) -> None:
        import tifffile

        numbers = list(range(self.channels) if channels is None else channels)
        low, high = self.limits()
        about = {
            "axes": "CYX",
            "mode": "grayscale",  # ImageJ would mix channels into one image
            "min": low,
            "max": high,
            "Labels": [f"channel {number}" for number in numbers],
            "Info": json.dumps({**self.facts, "channels": numbers}),
        }
        tifffile.imwrite(data, np.ascontiguousarray(chosen), imagej=True, metadata=about)


def frequency_order(frequencies: Floats) -> float:
    """Return how far channels are ordered by frequency: Spearman's rank correlation with their index.

    1 is rising from the first channel to the last, -1 falling, 0 no order.
    """
    _, places, counts = np.unique(frequencies, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # equal ones share their mean rank
    if len(counts) < 2:
        return 0.0
    return float(np.corrcoef(np.arange(len(ranks)), ranks)[0, 1])


def require_format(path: Path) -> str:
    """Return a path's ending in lower case; `SettingsError` if maps are not written as such."""
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise SettingsError(
            f"{path.name} ends in {ending or 'nothing'}; give a path in {', '.join(FORMATS)}."
        )
    return ending


def _percentiles(values: Floats) -> tuple[float, float]:
    flat = values.ravel()
    step = -(-flat.size // _SAMPLE)
    # an odd step meets all columns of grids whose sides are powers of two
    low, high = np.percentile(flat[:: step | 1], PERCENT)
    if high <= low:
        low, high = float(flat.min()), float(flat.max())
    least = 1e-5 * max(abs(low), abs(high), 1e-6)  # below that, colours would show nothing but rounding
    if high - low < least:
        low, high = low - 500 * least, high + 500 * least
    return float(low), float(high)
