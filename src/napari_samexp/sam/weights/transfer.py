"""One HTTPS connection of a download: the response after redirects, and its body into a file. No torch."""

from __future__ import annotations

import ssl
import time
from http.client import HTTPException, HTTPResponse, InvalidURL
from typing import TYPE_CHECKING, BinaryIO
from urllib.error import URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

import certifi

from napari_samexp._text import plain
from napari_samexp._urls import redacted_url

if TYPE_CHECKING:
    from napari_samexp.sam.weights.download import Download

__all__ = [
    "MAX_BYTES",
    "Broken",
    "open_response",
    "reason",
    "require_scheme",
    "start_of",
    "total_of",
    "write_body",
]

CHUNK_BYTES = 1 << 20
SLOWEST_BYTES_PER_S = 1024  # a server that drips slower than this over a whole stall time counts as stalled
MAX_REDIRECTS = 5
MAX_BYTES = 32 << 30  # where no size is known; a body without end must end somewhere
TEMPORARY = (408, 425, 429)  # and every 5xx


class Broken(Exception):
    """This connection failed in a way that another may mend."""


def open_response(job: Download, have: int) -> HTTPResponse:
    """Return a response with the bytes of the file from `have` on, after redirects."""
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
        require_scheme(job, url)
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
        raise job.failed(f"no connection to {_host(url)}: {reason(error)}") from error
    except (OSError, HTTPException) as error:  # connected, but no answer
        raise Broken(f"no answer from {_host(url)}: {reason(error)}") from error
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


def require_scheme(job: Download, url: str) -> None:
    """Raise unless an address has the one scheme that is allowed, a host, and no login."""
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
        return Broken(said)
    if response.status >= 500 or response.status in TEMPORARY:
        return Broken(said)
    return job.failed(said)


# ---- the body


def start_of(response: HTTPResponse, job: Download, have: int) -> int:
    """Return which byte of the file the body begins with: 0, or `have`."""
    if response.status == 200:
        return 0  # no ranges here: from the beginning
    given = response.headers.get("Content-Range", "")
    if not given.startswith(f"bytes {have}-"):
        job.part.unlink(missing_ok=True)
        raise Broken(f"asked for bytes from {have}, the server sent {plain(given, 40) or 'others'!r}")
    return have


def total_of(response: HTTPResponse, job: Download, start: int) -> int | None:
    """Return the size of the whole file, None where nobody says."""
    if response.length is None:
        return job.size
    total = start + response.length
    if total != (job.size if job.size is not None else min(total, MAX_BYTES)):
        raise job.failed(f"the server offers {total} bytes, expected {job.size or f'{MAX_BYTES} at most'}")
    return total


def write_body(response: HTTPResponse, file: BinaryIO, job: Download, done: int, total: int | None) -> None:
    """Append the body to a file that has `done` of `total` bytes; `Broken` if it ends early or stalls."""
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
                raise Broken(f"next to no data for {job.connection.stall_s:g} s")
            since, done_then = time.monotonic(), done
    if total is not None and done < total:
        raise Broken(f"the connection ended after {done} of {total} bytes")


def _piece(response: HTTPResponse, job: Download) -> bytes:
    try:
        return response.read1(CHUNK_BYTES)  # what is there now; read() would wait for all of a chunk
    except TimeoutError as error:
        raise Broken(f"no data for {job.connection.stall_s:g} s") from error
    except (OSError, HTTPException, ValueError) as error:
        raise Broken(reason(error)) from error


def _host(url: str) -> str:
    return plain(urlsplit(url).hostname, 80)


def reason(error: BaseException) -> str:
    """Return what went wrong in a few words."""
    cause = getattr(error, "reason", None) or error  # URLError wraps what really happened
    return plain(getattr(cause, "strerror", None) or cause) or type(cause).__name__
