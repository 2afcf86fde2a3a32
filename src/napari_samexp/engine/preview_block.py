"""Shared memory for the masks of previews."""

from __future__ import annotations

from dataclasses import replace

from napari_samexp.engine.messages.prompts import MAX_CHOICES, Preview, Previewed
from napari_samexp.engine.sharing import SharedArray

__all__ = ["PreviewBlock"]


class PreviewBlock:
    """One block for all previews, since only the newest one is read; it grows with the image."""

    def __init__(self) -> None:
        self._block: SharedArray | None = None

    def prepared(self, request: Preview) -> Preview:
        """Return the request with a place for its masks; `SamexpError` if there is no room."""
        height, width = request.image.pixels.shape[:2]
        shape = (MAX_CHOICES, -(-height * width // 8))
        if self._block is None or self._block.nbytes < shape[0] * shape[1]:
            self.release()
            self._block = SharedArray(shape, "uint8")
        return replace(request, into=self._block.ref)

    def with_masks(self, reply: Previewed) -> Previewed:
        """Return a reply with a copy of its packed masks."""
        assert self._block is not None
        height, width = reply.hw
        return replace(reply, bits=self._block.read((len(reply.iou), -(-height * width // 8))))

    def release(self) -> None:
        """Free the memory."""
        if self._block is not None:
            self._block.release()
            self._block = None
