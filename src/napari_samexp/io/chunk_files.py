"""Zarr arrays of files that nobody has vouched for: no codec that runs code, no chunk that unpacks without end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

from napari_samexp.errors import StoreError
from napari_samexp.io.guarded import NotOrdinaryError, read_whole, require_ordinary

__all__ = ["ChunkFiles", "labels_readable", "require_plain_codecs"]

# Codecs turn bytes into bytes or numbers. Not here: pickle, which runs code, and all that make objects of bytes.
_CODECS = frozenset((
    "bytes", "endian", "transpose", "crc32c", "zstd", "blosc", "gzip", "zlib", "lz4", "bz2", "lzma", "shuffle", "delta",
    "packbits", "sharding_indexed",
))  # fmt: skip
MAX_METADATA = 64 * 2**20  # bytes
_ZSTD = b"\x28\xb5\x2f\xfd"
_BLOSC_VERSIONS = (1, 2)


class ChunkFiles(LocalStore):
    """The files of an array, each of which is looked at before it is unpacked.

    Attributes
    ----------
    chunk_bytes : int or None
        What a chunk takes when it is unpacked. One that says that it takes more is refused with `StoreError`: a
        file of a few kilobytes can claim gigabytes.
    follows_links : bool
        Whether a file may be a link, as in other programs' archives of data; in our stores none is.
    """

    chunk_bytes: int | None = None
    follows_links: bool = True

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        """Return what `LocalStore.get` does."""
        self._require_ordinary(key)
        buffer = await super().get(key, *args, **kwargs)
        if buffer is not None and self.chunk_bytes is not None and not key.endswith((".json", ".zarray")):
            claimed = unpacked_bytes(buffer[:32].to_bytes())
            if claimed is not None and claimed > self.chunk_bytes:
                raise StoreError(
                    f"{self.root}/{key} says that it unpacks to {claimed} bytes, and {self.chunk_bytes} are expected; "
                    "it is damaged or hostile, so copy it again or track the frame again."
                )
        return buffer

    async def delete(self, key: str) -> None:
        """Remove a file; `LocalStore.delete` would remove a folder too."""
        self._require_ordinary(key)
        await super().delete(key)

    def _require_ordinary(self, key: str) -> None:
        """Raise `StoreError` for what is there and no file: a pipe never ends, nor does a link to a device."""
        path = self.root / key
        if self.follows_links and path.exists():
            path = path.resolve()
        try:
            require_ordinary(path, "file")
        except NotOrdinaryError as error:
            raise StoreError(error, code=error.code) from error


def unpacked_bytes(head: bytes) -> int | None:
    """Return how many bytes compressed data say that they unpack to, from their first 32; None if they do not.

    Source: RFC 8878, section 3.1.1 (Zstandard), and the README of chunk headers of c-blosc.
    """
    if head.startswith(_ZSTD) and len(head) > 4:
        return _zstd_size(head)
    if len(head) >= 16 and head[0] in _BLOSC_VERSIONS:
        return int.from_bytes(head[4:8], "little")
    return None


def _zstd_size(head: bytes) -> int:
    flags = head[4]
    single = flags >> 5 & 1
    length = (1 if single else 0, 2, 4, 8)[flags >> 6]
    if not length:  # it does not say, which no array's chunk does
        return 1 << 62
    start = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    return int.from_bytes(head[start : start + length], "little") + 256 * (length == 2)


def require_plain_codecs(folder: Path) -> None:
    """Raise `StoreError` if the metadata of a zarr array or group name a codec that could do more than unpack."""
    for path in sorted(
        {
            *folder.glob("zarr.json"),
            *folder.glob(".zarray"),
            *folder.glob("*/zarr.json"),
            *folder.glob("*/.zarray"),
        }
    ):
        try:
            metadata = json.loads(read_whole(path.resolve(), MAX_METADATA))
            names = set(_codec_names(metadata)) if isinstance(metadata, dict) else set()
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(
                f"{path} cannot be read ({type(error).__name__}); copy the labels again."
            ) from None
        if unknown := names - _CODECS:
            raise StoreError(
                f"{path} names the codec {min(unknown)!r}, which is not read here; save the labels again with zstd, "
                "blosc or gzip."
            )


def _codec_names(node: Any) -> Iterator[str]:
    """Yield the names of all codecs in an array's metadata, of format 2 or 3, also those within others."""
    for key in ("codecs", "index_codecs", "filters"):
        for codec in node.get(key) or ():
            yield from _codec(codec)
    if (compressor := node.get("compressor")) is not None:
        yield from _codec(compressor)


def _codec(codec: Any) -> Iterator[str]:
    if isinstance(codec, dict):
        yield str(codec.get("name", codec.get("id"))).removeprefix("numcodecs.")
        if isinstance(within := codec.get("configuration"), dict):
            yield from _codec_names(within)
    else:
        yield str(codec)


@contextmanager
def labels_readable(what: str) -> Iterator[None]:
    """Turn what zarr, codecs and lazy arrays raise in the block into a `StoreError`; an `IndexError` stays."""
    try:
        yield
    except (StoreError, IndexError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoreError(f"{what} cannot be read ({reason}); copy or track them again.") from error
