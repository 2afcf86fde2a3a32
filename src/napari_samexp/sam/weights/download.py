"""One file over HTTPS into a folder: resumed, bounded, checked, and named only once it is right. No torch."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import BinaryIO
from urllib.error import URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

import certifi
from filelock import FileLock

from napari_samexp._text import plain
from napari_samexp._urls import redacted, redacted_url
from napari_samexp.errors import CheckpointError
from napari_samexp.sam.weights.hashes import differs

__all__ = ["Connection", "Download", "Progress", "download"]

Progress = Callable[[int, int | None], None]

CHUNK_BYTES = 1 << 20
SLOWEST_BYTES_PER_S = 1024  # a server that drips slower than this over a whole stall time counts as stalled
MAX_REDIRECTS = 5
MAX_BYTES = 32 << 30  # where no size is known; a body without end must end somewhere
TEMPORARY = (408, 425, 429)  # and every 5xx

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


class _Broken(Exception):
    """This connection failed in a way that another may mend."""


def download(job: Download) -> Path:
    """Download a file, unless another process has just done so, and return its path.

    Two processes that want the same file at once take turns: the second waits and finds it done.

    Raises
    ------
    CheckpointError
        If there is no connection, the server lies, the disk fails, or the hash is not the expected one.
    """
    _require_scheme(job, job.url)
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{job.target}.lock"):
            if not job.target.exists():
                _complete(job)
                _seal(job)
    except (OSError, NotImplementedError) as error:  # filelock raises the latter where a disk knows no locks
        raise CheckpointError(
            f"{job.target.name} cannot be kept in {job.target.parent} ({_reason(error)}); make room, or give "
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
        except _Broken as broken:
            why = str(broken)
            _log.info("download of %s broke off: %s", job.shown, redacted(why))
    raise job.failed(why)


def _connect_once(job: Download) -> None:
    have = _usable_part(job)
    if have == job.size:
        return
    with _opened(job, have) as response:
        start = _start_of(response, job, have)
        total = _total_of(response, job, start)
        with open(job.part, "ab" if start else "wb", opener=_no_link) as file:
            _pour(response, file, job, start, total)
            file.flush()
            os.fsync(file.fileno())


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _usable_part(job: Download) -> int:
    if job.part.is_symlink():  # in a cache that many share, a way to have another file written to
        job.part.unlink()
    have = job.part.stat().st_size if job.part.exists() else 0
    if have > (job.size if job.size is not None else MAX_BYTES):
        job.part.unlink()  # from something else; no beginning of this file
        return 0
    return have


def _seal(job: Download) -> None:
    if difference := differs(job.part, job.sha256, job.git_blob):
        job.part.unlink()
        raise job.failed(f"what came has {difference}; it was thrown away")
    job.part.replace(job.target)


# The connection


def _opened(job: Download, have: int) -> HTTPResponse:
    """Return an answer that holds the file's bytes, after redirects."""
    url = job.url
    for _ in range(MAX_REDIRECTS + 1):
        response = _request(job, url, have)
        if response.status in (200, 206):
            return response
        # urllib's own redirects read the whole body first, which may have no end: only headers count here
        with response:
            if response.status not in (301, 302, 303, 307, 308):
                raise _refusal(job, response)
            url = _joined(url, response.headers.get("Location", ""))
        _require_scheme(job, url)
    raise job.failed(f"more than {MAX_REDIRECTS} redirects")


def _request(job: Download, url: str, have: int) -> HTTPResponse:
    headers = {"User-Agent": "napari-samexp", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response: HTTPResponse = _opener(job).open(
            Request(url, headers=headers), timeout=job.connection.stall_s
        )
    except InvalidURL:  # what it says quotes the address
        raise job.failed(f"no connection to {_host(url)}: the address is not a valid one") from None
    except (URLError, ValueError) as error:  # not connected, and unlikely to be a moment later
        raise job.failed(f"no connection to {_host(url)}: {_reason(error)}") from error
    except (OSError, HTTPException) as error:  # connected, but no answer
        raise _Broken(f"no answer from {_host(url)}: {_reason(error)}") from error
    return response


def _opener(job: Download) -> OpenerDirector:
    # Nothing but the one scheme is built in, so that no answer can lead to a file, ftp or anything else.
    opener = OpenerDirector()
    opener.add_handler(ProxyHandler())
    if job.connection.allow_http:
        opener.add_handler(HTTPHandler())
        return opener
    context = ssl.create_default_context()  # what this computer trusts (a company's proxy, say) ...
    context.load_verify_locations(certifi.where())  # ... and the usual ones, for a Python that finds none
    opener.add_handler(HTTPSHandler(context=context))
    return opener


def _require_scheme(job: Download, url: str) -> None:
    wanted = "http" if job.connection.allow_http else "https"
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme != wanted or not parts.hostname:
        found = "the server points to" if url != job.url else "the address is"
        raise job.failed(f"{found} {plain(redacted_url(url))!r}, expected {wanted}://")
    if "@" in parts.netloc:
        raise job.failed(
            "the address has a user name or password before the host, which is not sent; give it without"
        )


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return location


def _refusal(job: Download, response: HTTPResponse) -> Exception:
    said = f"the server answered {response.status} {plain(response.reason, 60)}".rstrip()
    if response.status == 416:  # our part is no beginning of what the server has
        job.part.unlink(missing_ok=True)
        return _Broken(said)
    if response.status >= 500 or response.status in TEMPORARY:
        return _Broken(said)
    return job.failed(said)


# The body


def _start_of(response: HTTPResponse, job: Download, have: int) -> int:
    if response.status == 200:
        return 0  # no ranges here: from the beginning
    given = response.headers.get("Content-Range", "")
    if not given.startswith(f"bytes {have}-"):
        job.part.unlink(missing_ok=True)
        raise _Broken(f"asked for bytes from {have}, the server sent {plain(given, 40) or 'others'!r}")
    return have


def _total_of(response: HTTPResponse, job: Download, start: int) -> int | None:
    if response.length is None:
        return job.size
    total = start + response.length
    if total != (job.size if job.size is not None else min(total, MAX_BYTES)):
        raise job.failed(f"the server offers {total} bytes, expected {job.size or f'{MAX_BYTES} at most'}")
    return total


def _pour(response: HTTPResponse, file: BinaryIO, job: Download, done: int, total: int | None) -> None:
    since, done_then = time.monotonic(), done
    while done != total:
        piece = _piece(response, job)
        if not piece:
            break
        done += len(piece)
        if done > (MAX_BYTES if total is None else total):
            job.part.unlink(missing_ok=True)
            raise job.failed(f"the server sent more than the {total or MAX_BYTES} bytes expected")
        file.write(piece)
        if job.progress is not None:
            job.progress(done, total)
        if time.monotonic() - since >= job.connection.stall_s:
            if done - done_then < SLOWEST_BYTES_PER_S * job.connection.stall_s:
                raise _Broken(f"next to no data for {job.connection.stall_s:g} s")
            since, done_then = time.monotonic(), done
    if total is not None and done < total:
        raise _Broken(f"the connection ended after {done} of {total} bytes")


def _piece(response: HTTPResponse, job: Download) -> bytes:
    try:
        return response.read1(CHUNK_BYTES)  # what is there now; read() would wait for all of a chunk
    except TimeoutError as error:
        raise _Broken(f"no data for {job.connection.stall_s:g} s") from error
    except (OSError, HTTPException, ValueError) as error:
        raise _Broken(_reason(error)) from error


def _host(url: str) -> str:
    return plain(urlsplit(url).hostname, 80)


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", None) or error  # URLError wraps what really happened
    return plain(getattr(cause, "strerror", None) or cause) or type(cause).__name__
