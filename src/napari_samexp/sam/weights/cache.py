"""Weight files on this computer: found, or downloaded once into the cache and verified. No torch."""

from __future__ import annotations

import difflib
import os
import re
from contextlib import suppress
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from napari_samexp._private import private_folder
from napari_samexp._text import plain
from napari_samexp._urls import redacted_url
from napari_samexp.errors import CheckpointError
from napari_samexp.sam.weights.catalogue import CACHE_VARIABLE, HASH_MARK, OFFICIAL, STARTER, OfficialFile
from napari_samexp.sam.weights.download import Connection, Download, Progress, download
from napari_samexp.sam.weights.hashes import differs, sha256_of
from napari_samexp.sam.weights.verified import difference

__all__ = [
    "cache_dir",
    "fetch",
    "fetch_url",
    "is_address",
    "locate",
    "may_have_made",
    "official_of",
]

_PATIENT = Connection()


def cache_dir() -> Path:
    """Return the folder for downloaded weights, which need not exist yet.

    It is the user's cache folder of this system, or what the environment variable ``NAPARI_SAMEXP_CACHE``
    names.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return platformdirs.user_cache_path("napari-samexp", appauthor=False)


def locate(name_or_path: str | Path) -> Path | None:
    """Return where weights are on this computer, without network access.

    Parameters
    ----------
    name_or_path : str or Path
        ``"starter"``, a name from `OFFICIAL`, the path of a file of one's own, or an https address of one's
        own with the file's hash behind it: ``https://host/file.pt#sha256=`` and 64 hexadecimal digits.

    Returns
    -------
    Path or None
        None for an official file, or that of an address, that has not been downloaded yet.

    Raises
    ------
    CheckpointError
        If it is neither a known name nor a path that exists, or if the cache holds something else
        under an official file's name (one put there by hand is hashed once, then remembered).
    """
    if name_or_path == STARTER:
        return _starter()
    official = OFFICIAL.get(str(name_or_path))
    if official is None:
        return _cached(*_address(name_or_path)[1:]) if is_address(name_or_path) else _own_path(name_or_path)
    return _cached(cache_dir() / official.file, official.sha256, official.git_blob)


def fetch(
    name_or_path: str | Path | OfficialFile,
    *,
    progress: Progress | None = None,
    connection: Connection = _PATIENT,
) -> Path:
    """Return where weights are; an official file is downloaded into the cache once.

    Parameters
    ----------
    name_or_path : str, Path or OfficialFile
        As for `locate`.
    progress : callable, optional
        Called often with the bytes on disk and the bytes in all (None where unknown); it may raise to stop
        the download, and the next call goes on from there.
    connection : Connection
        How patient to be with the server.

    Raises
    ------
    CheckpointError
        As `locate`, or if the file can neither be downloaded whole nor be verified; the sentence says from
        which address and to which folder it can be brought by hand.
    """
    if not isinstance(name_or_path, OfficialFile):
        if is_address(name_or_path):
            return fetch_url(
                *str(name_or_path).rsplit(HASH_MARK, 1), progress=progress, connection=connection
            )
        if str(name_or_path) not in OFFICIAL:
            return _starter() if name_or_path == STARTER else _own_path(name_or_path)
        name_or_path = OFFICIAL[str(name_or_path)]
    official = name_or_path
    target = cache_dir() / official.file
    size = official.bytes if official.sha256 else None
    return _cached_or_downloaded(
        Download(official.url, target, official.sha256, size, progress, connection, official.git_blob)
    )


def fetch_url(
    url: str,
    sha256: str,
    *,
    progress: Progress | None = None,
    connection: Connection = _PATIENT,
) -> Path:
    """Return where the file of an https address is; it is downloaded into the cache once.

    Parameters
    ----------
    url : str
        An https address.
    sha256 : str
        64 hexadecimal digits: what the file must be. It is also the file's identity in the cache.
    progress : callable, optional
        Called often with the bytes on disk and the bytes in all (None where unknown); it may raise to stop
        the download, and the next call goes on from there.
    connection : Connection
        How patient to be with the server.

    Raises
    ------
    CheckpointError
        As `fetch`, or if the address or the hash is none.
    """
    url, target, digest = _address(f"{url}{HASH_MARK}{sha256}")
    return _cached_or_downloaded(Download(url, target, digest, None, progress, connection))


def is_address(name: object) -> bool:
    """Whether a model's name is an address with a hash, as `locate` takes it."""
    return isinstance(name, str) and HASH_MARK in name and name.lower().startswith(("https://", "http://"))


def _address(name: object) -> tuple[str, Path, str]:
    """Return the address, the place in the cache and the SHA-256 of a name that is an address."""
    url, _, given = str(name).rpartition(HASH_MARK)
    digest = given.strip().lower()
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise CheckpointError(
            f"What follows {HASH_MARK} is not a SHA-256; give the 64 hexadecimal digits of the file at "
            f"{plain(redacted_url(url))}."
        )
    return url, cache_dir() / f"{digest[:16]}-{_file_name(url)}", digest


def may_have_made(official: OfficialFile, model: str, sha256: str) -> bool:
    """Whether memories recorded with a model name and a weights hash may come from an official file."""
    if official.sha256:
        return official.sha256 == sha256
    path = cache_dir() / official.file
    if official.name != model or not path.is_file():
        return official.name == model
    return sha256_of(path) == sha256


def official_of(path: Path, sha256: str) -> OfficialFile | None:
    """Return the official file whose bytes a file of a known SHA-256 has, if there is one."""
    for entry in OFFICIAL.values():
        if entry.sha256 == sha256 or not (entry.sha256 or differs(path, "", entry.git_blob)):
            return entry
    return None


def _cached_or_downloaded(job: Download) -> Path:
    if not os.environ.get(CACHE_VARIABLE):  # a folder that was chosen may be shared on purpose
        with suppress(OSError):  # the download says why
            private_folder(cache_dir())
    path = _cached(job.target, job.sha256, job.git_blob)
    if path is None:
        path = download(job)
        _cached(path, job.sha256, job.git_blob)  # another process may have written it in the meantime
    return path


def _starter() -> Path:
    path = Path(str(resources.files("napari_samexp") / "starter.safetensors"))
    if not path.is_file():
        raise CheckpointError(
            f"The bundled weights are not at {path}; install napari-samexp again, or name another model such "
            "as sam2.1_hiera_tiny."
        )
    return path


def _own_path(name_or_path: str | Path) -> Path:
    with suppress(OSError, ValueError, RuntimeError):  # too long, a NUL byte, an unknown ~user
        path = Path(name_or_path).expanduser()
        if path.exists():
            return path
    given = str(name_or_path)
    if given.lower().startswith(("http://", "https://")):
        raise CheckpointError(
            f"{plain(redacted_url(given))} is an address; give its SHA-256 too, behind it as {HASH_MARK}... or with --sha256."
        )
    known = [STARTER, *OFFICIAL]
    close = difflib.get_close_matches(given[:80], known, n=3) or known
    raise CheckpointError(
        f"There is no file {plain(given)!r} and no model of that name; give a path, or a name such as "
        f"{', '.join(close)}."
    )


def _cached(path: Path, sha256: str, git_blob: str = "") -> Path | None:
    """Return the path if the right file is there, None if there is none."""
    try:
        if not path.exists():
            return None
        if found := difference(path, sha256, git_blob):
            raise CheckpointError(
                f"{path} is damaged or another file: it has {found}; delete it, and it will be downloaded anew.",
                code="download-damaged",
            )
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({plain(error.strerror)}); see to its permissions."
        ) from error
    return path


def _file_name(url: str) -> str:
    with suppress(ValueError):
        last = urlsplit(url).path.rpartition("/")[2]
        return re.sub("[^A-Za-z0-9._-]", "_", last)[-80:] or "weights"
    return "weights"
