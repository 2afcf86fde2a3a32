"""The images that were encoded last, so that the next click does not wait for the encoder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from napari_samexp.engine.messages import ImageRef
from napari_samexp.engine.sharing import read_shared
from napari_samexp.images import to_rgb8
from napari_samexp.sam.features import ImageFeatures
from napari_samexp.sam.models import Sam1, Sam2
from napari_samexp.tracking.recording import image_hash

__all__ = ["EncodedImages", "pixels_of"]

KNOWN_KEYS = 256
Rgb = npt.NDArray[np.uint8]


class EncodedImages:
    """Encoded images by content, encode side and shape; the one used longest ago makes place.

    Parameters
    ----------
    most : int
        How many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._features: OrderedDict[tuple[str, int, bool], ImageFeatures] = OrderedDict()
        self._hashes: OrderedDict[str, str] = OrderedDict()  # of images whose pixels were read once

    def clear(self) -> None:
        """Forget all, as another model needs."""
        self._features.clear()

    def of_image(
        self,
        model: Sam1 | Sam2,
        image: ImageRef,
        side: int | None,
        square: bool,
        announce: Callable[[], None],
    ) -> ImageFeatures:
        """Return a shared image's features; `announce` is called if it has to be encoded."""
        known = self._hashes.get(image.key)
        if known is not None and (found := self._find(model, known, side, square)) is not None:
            return found
        rgb = pixels_of(image)
        self._hashes[image.key] = image_hash(rgb)
        while len(self._hashes) > KNOWN_KEYS:
            self._hashes.popitem(last=False)
        return self.of_pixels(model, rgb, side, square, announce)

    def of_pixels(
        self, model: Sam1 | Sam2, rgb: Rgb, side: int | None, square: bool, announce: Callable[[], None]
    ) -> ImageFeatures:
        """Return the features of an image in this process."""
        key = image_hash(rgb)
        found = self._find(model, key, side, square)
        if found is None:
            announce()
            while len(self._features) >= self._most:  # first, so that memory holds no more than that
                self._features.popitem(last=False)
            found = model.encode(rgb, side=side, square=square)
            self._features[key, side or model.variant.image_size, square] = found
        return found

    def _find(self, model: Sam1 | Sam2, key: str, side: int | None, square: bool) -> ImageFeatures | None:
        place = (key, side or model.variant.image_size, square)
        if place in self._features:
            self._features.move_to_end(place)
        return self._features.get(place)


def pixels_of(image: ImageRef) -> Rgb:
    """Return a shared image as 8-bit RGB."""
    return to_rgb8(read_shared(image.pixels), image.limits)
