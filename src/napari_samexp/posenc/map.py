"""A position encoding as a map: values, norm, similarity, frequencies, and files of it. numpy only."""

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
PERCENT = (1.0, 99.0)  # of the values, from dark to bright; outliers would leave the rest one colour
_SAMPLE = 2**16  # values of a large map from which percentiles are estimated

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PosencMap:
    """A position encoding of one model on one grid.

    Parameters
    ----------
    values : array, shape (C, h, w), float32
    model : str
        The name of the model, or of the weights file.
    part : str
        Such as ``"absolute"``; see `EncodingSpec`.
    grid_hw : (int, int)
        The grid of tokens for which it was computed. The map has this size, except for relative positions,
        where it is 2 h - 1 by 2 w - 1.
    window_tile : bool
        Whether SAM 2's tiled window table is included.
    dtype : str
        The dtype of the computation; with ``"-error"``, the map is the rounding error of that dtype.
    kind : "tokens", "offsets" or "frames"
        What a position of the map is: a token, the offset of a key from its query, or a distance in time.
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
        """Model, encoding, grid and dtype in a few words."""
        height, width = self.grid_hw
        tile = "" if self.window_tile else ", no window tile"
        return f"{self.model} · {self.part}{tile} · {height} × {width} · {self.dtype}"

    def channel(self, index: int) -> Floats:
        """Return one channel, (h, w) float32; `SettingsError` if there is no such channel."""
        if not 0 <= index < self.channels:
            raise SettingsError(f"There is no channel {index}; the map has {self.channels}, from 0.")
        values: Floats = self.values[index]
        return values

    def norm(self) -> Floats:
        """Return the L2 norm of every token, (h, w) float32."""
        return self._norm

    @cached_property
    def _norm(self) -> Floats:
        squares = np.zeros(self.hw, np.float32)
        for channel in self.values:  # channel by channel, which stays in the CPU cache
            squares += channel * channel
        return np.sqrt(squares)

    def similarity(self, y: int, x: int) -> Floats:
        """Return the cosine similarity of every token to the one at (y, x), (h, w) float32 from -1 to 1.

        The similarity is 0 where a norm is 0.

        Raises
        ------
        SettingsError
            If (y, x) is not in the map.
        """
        height, width = self.hw
        if not (0 <= y < height and 0 <= x < width):
            raise SettingsError(f"There is no place ({y}, {x}) in a map of {height} x {width}.")
        # not @, which is faster alone: its threads wait for each other when the machine is busy
        products = np.einsum("c,cn->n", self.values[:, y, x], self.values.reshape(self.channels, -1))
        sizes = self.norm() * self.norm()[y, x]
        out = np.zeros(self.hw, np.float32)
        np.divide(products.reshape(self.hw), sizes, out=out, where=sizes > 0)
        return np.clip(out, -1, 1, out=out)

    def limits(self, channel: int | None = None) -> tuple[float, float]:
        """Return the values for dark and bright: the 1st and 99th percentile of all channels, or of one.

        For a large map they are estimated from every n-th value. They are never equal.
        """
        return self._limits if channel is None else _percentiles(self.channel(channel))

    def norm_limits(self) -> tuple[float, float]:
        """Return the values for dark and bright of the norm, like `limits`."""
        return _percentiles(self.norm())

    @cached_property
    def _limits(self) -> tuple[float, float]:
        return _percentiles(self.values)

    def spectrum(self, channel: int) -> Floats:
        """Return the 2-D Fourier magnitude of a channel minus its mean, (h, w) float32, with frequency 0 in the middle."""
        values = self.channel(channel)
        transform = np.fft.fft2(values - values.mean())
        return np.abs(np.fft.fftshift(transform)).astype(np.float32)

    def frequencies(self) -> Floats:
        """Return the frequency of each channel's strongest Fourier component, (C,) float32.

        In cycles across the map, (fy² + fx²)^½; 0 for a constant channel.
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
            quiet = size[strongest] <= 1e-6 * values.size * np.abs(values).max()  # only rounding
            out[index] = 0 if quiet else radius[strongest]
        return out

    def place(self, y: int, x: int) -> str:
        """Return a name for a position of the map."""
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
        """Write the map as .npy (the array), .tif (an ImageJ stack with metadata) or .png (a contact sheet).

        Parameters
        ----------
        path : path
            Its suffix selects the format.
        channels : sequence of int, optional
            Which channels, in which order; by default all, or 24 evenly spaced ones on a contact sheet.
        per_channel : bool
            Whether each channel of a contact sheet has its own contrast.

        Raises
        ------
        SettingsError
            If the suffix is another one, or a channel does not exist.
        StoreError
            If the file cannot be written; an existing one is then unchanged.
        """
        target = absolute_path(path)
        ending = require_format(target)
        if ending == ".png":
            from napari_samexp.posenc.sheet import save_sheet  # imports Pillow

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
        """What the map is, as JSON values for metadata."""
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
    """Return Spearman's rank correlation between the frequencies of channels and their index.

    1 if they rise from the first channel to the last, -1 if they fall, 0 if there is no order.
    """
    _, places, counts = np.unique(frequencies, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # equal values share their mean rank
    if len(counts) < 2:
        return 0.0
    return float(np.corrcoef(np.arange(len(ranks)), ranks)[0, 1])


def require_format(path: Path) -> str:
    """Return the suffix of a path in lower case; `SettingsError` if it is not one of `FORMATS`."""
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise SettingsError(
            f"{path.name} ends in {ending or 'nothing'}; give a path in {', '.join(FORMATS)}."
        )
    return ending


def _percentiles(values: Floats) -> tuple[float, float]:
    flat = values.ravel()
    step = -(-flat.size // _SAMPLE)
    # an odd step visits all columns of grids whose sides are powers of two
    low, high = np.percentile(flat[:: step | 1], PERCENT)
    if high <= low:
        low, high = float(flat.min()), float(flat.max())
    least = 1e-5 * max(abs(low), abs(high), 1e-6)  # below that, colours would show only rounding
    if high - low < least:
        low, high = low - 500 * least, high + 500 * least
    return float(low), float(high)
