"""One file over HTTPS into a folder: resumed, bounded, checked, and named only once it is right. No torch."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from napari_samexp._urls import redacted, redacted_url
from napari_samexp.errors import CheckpointError
from napari_samexp.sam.weights import transfer
from napari_samexp.sam.weights.hashes import differs
from napari_samexp.sam.weights.transfer import Broken

__all__ = ["Connection", "Download", "Progress", "download"]

Progress = Callable[[int, int | None], None]


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """How patient to be with a server.

    Parameters
    ----------
    stall_s : float
        Seconds without data, or with next to none, after which a connection counts as broken.
    tries : int
        Connections in all; one that breaks is resumed by the next.
    pause_s : float
        Seconds before the second connection; doubled before each further one.
    allow_http : bool
        http instead of https: for tests with a server of their own on the loopback interface.
    """

    stall_s: float = 30.0
    tries: int = 4
    pause_s: float = 1.0
    allow_http: bool = False


@dataclass(frozen=True, slots=True)
class Download:
    """What to download, what it must be, and where it goes.

    Parameters
    ----------
    url : str
        An https address.
    target : Path
        The file that exists afterwards; ``.part`` and ``.lock`` files lie beside it.
    sha256 : str
        64 lower-case hexadecimal digits; empty where only `git_blob` is known.
    size : int, optional
        Bytes, where known; a server that offers another number is refused before anything is read.
    progress : callable, optional
        Called often with the bytes on disk and the bytes in all (None where the server does not say).
        It may raise to stop the download; what has come is kept and the next call goes on from there.
    connection : Connection
        How patient to be.
    git_blob : str
        The file's id in a git repository, for one whose SHA-256 nobody has published.
    """

    url: str
    target: Path
    sha256: str
    size: int | None = None
    progress: Progress | None = None
    connection: Connection = Connection()
    git_blob: str = ""

    @property
    def part(self) -> Path:
        """Where the bytes go until all are there and right."""
        return self.target.with_name(self.target.name + ".part")

    @property
    def shown(self) -> str:
        """The address as it may be shown."""
        return redacted_url(self.url)

    def failed(self, why: str) -> CheckpointError:
        """Return the error that says why, and how to get the file by hand."""
        return CheckpointError(
            f"{self.target.name} could not be downloaded ({why}); try again, or download {self.shown} by hand "
            f"and save it as {self.target.name} in the folder {self.target.parent}.",
            code="offline",
        )


def download(job: Download) -> Path:
    """Download a file, unless another process has just done so, and return its path.

    Two processes that want the same file at once take turns: the second waits and finds it done.

    Raises
    ------
    CheckpointError
        If there is no connection, the server lies, the disk fails, or the hash is not the expected one.
    """
    transfer.require_scheme(job, job.url)
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{job.target}.lock"):
            if not job.target.exists():
                _complete(job)
                _seal(job)
    except (OSError, NotImplementedError) as error:  # filelock raises the latter where a disk knows no locks
        raise CheckpointError(
            f"{job.target.name} cannot be kept in {job.target.parent} ({transfer.reason(error)}); make room, or give "
            "another folder in the environment variable NAPARI_SAMEXP_CACHE.",
            code="disk-full",
        ) from error
    return job.target


def _complete(job: Download) -> None:
    for attempt in range(job.connection.tries):
        if attempt:
            time.sleep(job.connection.pause_s * 2 ** (attempt - 1))
        try:
            return _connect_once(job)
        except Broken as broken:
            why = str(broken)
            _log.info("download of %s broke off: %s", job.shown, redacted(why))
    raise job.failed(why)


def _connect_once(job: Download) -> None:
    have = _usable_part(job)
    if have == job.size:
        return
    with transfer.open_response(job, have) as response:
        start = transfer.start_of(response, job, have)
        total = transfer.total_of(response, job, start)
        with open(job.part, "ab" if start else "wb", opener=_no_link) as file:
            transfer.write_body(response, file, job, start, total)
            file.flush()
            os.fsync(file.fileno())


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _usable_part(job: Download) -> int:
    if job.part.is_symlink():  # in a cache that many share, a way to have another file written to
        job.part.unlink()
    have = job.part.stat().st_size if job.part.exists() else 0
    if have > (job.size if job.size is not None else transfer.MAX_BYTES):
        job.part.unlink()  # from something else; no beginning of this file
        return 0
    return have


def _seal(job: Download) -> None:
    if difference := differs(job.part, job.sha256, job.git_blob):
        job.part.unlink()
        raise job.failed(f"what came has {difference}; it was thrown away")
    job.part.replace(job.target)
