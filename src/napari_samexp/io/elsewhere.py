"""Whether a path found in a file leads to another computer, which opening it would contact.

On Windows, a look at ``\\\\host\\share`` is enough to send the user's name and a hash of the password to ``host``.
A path that a person typed or chose is trusted; a path from a file is opened only if it stays on this computer.
"""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

__all__ = ["other_computer"]

WINDOWS = os.name == "nt"
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):(?=[/\\])")  # with two letters: C:/ is a drive
_DEVICE = re.compile(r"/(?:/[?.]|\?\?)/(.*)", re.DOTALL)  # \\?\, \\.\ and \??\
_LOCAL_DEVICE = re.compile(r"[a-z]:(/|$)|volume\{[^/]*\}(/|$)", re.IGNORECASE)


def other_computer(
    path: str | os.PathLike[str], beside: str | os.PathLike[str] = "", *, windows: bool | None = None
) -> str:
    """Return the name of the computer that opening a path would contact, or an empty string.

    Only the text decides; nothing is opened or looked up.

    Parameters
    ----------
    path : path
        As it stands in the file, or joined to the folder of the file.
    beside : path, optional
        The file that holds the path. A path to the computer of that file is fine: opening the file has
        contacted it already.
    windows : bool, optional
        Whether to read paths as Windows does; by default as this computer does.
    """
    windows = WINDOWS if windows is None else windows
    host = _host(os.fspath(path), windows)
    return "" if host and host == _host(os.fspath(beside), windows) else host


def _host(path: str, windows: bool) -> str:
    url = _URL.match(path)
    if url is not None:
        return _host_of_url(url[1].lower(), path[url.end() :].replace("\\", "/"), windows)
    return _host_of_share(path.replace("\\", "/")) if windows else ""


def _host_of_url(scheme: str, rest: str, windows: bool) -> str:
    host = rest[2:].partition("/")[0] if rest.startswith("//") else ""
    if scheme != "file":
        return host.rpartition("@")[2].casefold() or scheme
    if host and host.casefold() != "localhost":
        return host.casefold()
    # file:////host/share has no host of its own, and a share for a path
    return _host_of_share(unquote(rest[2:].removeprefix(host) if rest.startswith("//") else rest), windows)


def _host_of_share(path: str, windows: bool = True) -> str:
    """Return the host of a path with slashes of one kind."""
    if not windows:
        return ""
    path = path.replace("\\", "/")
    device = _DEVICE.match(path)
    if device is not None:
        rest = device[1]
        if _LOCAL_DEVICE.match(rest):
            return ""
        path = f"//{rest[4:] if rest[:4].lower() == 'unc/' else rest}"
    if not path.startswith("//"):
        return ""
    return path.strip("/").partition("/")[0].partition("@")[0].casefold() or "?"
