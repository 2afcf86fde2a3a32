"""Zarr arrays from untrusted files: no codec runs code, and no chunk unpacks to more than its array says."""

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

# codecs that turn bytes into bytes or numbers; pickle, which runs code, and other object codecs are left out
_CODECS = frozenset((
    "bytes", "endian", "transpose", "crc32c", "zstd", "blosc", "gzip", "zlib", "lz4", "bz2", "lzma", "shuffle", "delta",
    "packbits", "sharding_indexed",
))  # fmt: skip
MAX_METADATA = 64 * 2**20  # bytes
_ZSTD = b"\x28\xb5\x2f\xfd"
_BLOSC_VERSIONS = (1, 2)


class ChunkFiles(LocalStore):
    """The files of an array, checked before they are unpacked.

    Attributes
    ----------
    chunk_bytes : int or None
        Size of an unpacked chunk. A chunk that claims more is refused with `StoreError`: a file of a few
        kilobytes can claim gigabytes.
    follows_links : bool
        Whether a file may be a link, as in other programs' data archives; our stores have none.
    """

    chunk_bytes: int | None = None
    follows_links: bool = True

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        """Return what `LocalStore.get` returns, after the checks."""
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
        """Raise `StoreError` if there is something other than a file: pipes and devices may never end."""
        path = self.root / key
        if self.follows_links and path.exists():
            path = path.resolve()
        try:
            require_ordinary(path, "file")
        except NotOrdinaryError as error:
            raise StoreError(error, code=error.code) from error


def unpacked_bytes(head: bytes) -> int | None:
    """Return the unpacked size that compressed data claim in their first 32 bytes; None if they claim none.

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
    if not length:  # no size given, which no chunk of an array does
        return 1 << 62
    start = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    return int.from_bytes(head[start : start + length], "little") + 256 * (length == 2)


def require_plain_codecs(folder: Path) -> None:
    """Raise `StoreError` if the metadata of a zarr array or group name a codec that may do more than unpack."""
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
    """Yield the names of all codecs in an array's metadata (zarr format 2 or 3), also nested ones."""
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
    """Turn any error of zarr, codecs and lazy arrays in the block into a `StoreError`, except an `IndexError`."""
    try:
        yield
    except (StoreError, IndexError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoreError(f"{what} cannot be read ({reason}); copy or track them again.") from error
