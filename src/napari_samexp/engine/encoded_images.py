"""A cache of encoded images, so that the next click does not wait for the encoder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from napari_samexp.engine.messages.base import ImageRef
from napari_samexp.engine.sharing import read_shared
from napari_samexp.images import to_rgb8
from napari_samexp.sam.features import ImageFeatures
from napari_samexp.sam.sam1 import Sam1
from napari_samexp.sam.sam2 import Sam2
from napari_samexp.tracking.recording import image_hash

__all__ = ["EncodedImages", "pixels_of"]

MOST_HASHES = 256
Rgb = npt.NDArray[np.uint8]


class EncodedImages:
    """The features of the last images, by content, encode side and shape; the least recently used one is dropped.

    Parameters
    ----------
    most : int
        How many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._features: OrderedDict[tuple[str, int, bool], ImageFeatures] = OrderedDict()
        self._hashes: OrderedDict[str, str] = OrderedDict()  # by `ImageRef.key`

    def clear(self) -> None:
        """Drop all features, as another model needs."""
        self._features.clear()

    def of_image(
        self,
        model: Sam1 | Sam2,
        image: ImageRef,
        side: int | None,
        square: bool,
        on_encode: Callable[[], None],
    ) -> ImageFeatures:
        """Return a shared image's features; `on_encode` is called if it has to be encoded.

        The pixels are not read if the image has been seen and its features are still cached.
        """
        known = self._hashes.get(image.key)
        if known is not None and (found := self._find(model, known, side, square)) is not None:
            return found
        rgb = pixels_of(image)
        return self.of_pixels(model, rgb, self.hash_of(image, rgb), side, square, on_encode)

    def of_pixels(
        self,
        model: Sam1 | Sam2,
        rgb: Rgb,
        key: str,
        side: int | None,
        square: bool,
        on_encode: Callable[[], None],
    ) -> ImageFeatures:
        """Return the features of an image in this process; `key` is its `image_hash`."""
        found = self._find(model, key, side, square)
        if found is None:
            on_encode()
            while (
                len(self._features) >= self._most
            ):  # before encoding, so that memory holds no more than that
                self._features.popitem(last=False)
            found = model.encode(rgb, side=side, square=square)
            self._features[key, side or model.variant.image_size, square] = found
        return found

    def hash_of(self, image: ImageRef, rgb: Rgb) -> str:
        """Return the `image_hash` of a shared image, computed once."""
        if image.key not in self._hashes:
            self._hashes[image.key] = image_hash(rgb)
            while len(self._hashes) > MOST_HASHES:
                self._hashes.popitem(last=False)
        return self._hashes[image.key]

    def _find(self, model: Sam1 | Sam2, key: str, side: int | None, square: bool) -> ImageFeatures | None:
        place = (key, side or model.variant.image_size, square)
        if place in self._features:
            self._features.move_to_end(place)
        return self._features.get(place)


def pixels_of(image: ImageRef) -> Rgb:
    """Return a shared image as 8-bit RGB."""
    return to_rgb8(read_shared(image.pixels), image.limits)
