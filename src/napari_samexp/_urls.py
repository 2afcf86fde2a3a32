"""URLs without credentials, for errors, logs, settings and manifests."""

from __future__ import annotations

import re

__all__ = ["redacted", "redacted_url"]

# One slash or backslash is enough: `Path` drops the second one of a URL.
_START = r"[a-z][a-z0-9+.-]{1,20}:[/\\]{2}|(?:https?|ftps?|sftp|rtsps?|rtmps?|s3|gs|az|ssh|tcp|tls):[/\\]"
_WHOLE = re.compile(rf"({_START})(.*)", re.IGNORECASE | re.DOTALL)
_WITHIN = re.compile(rf"(?<![a-z0-9])({_START})([^\s'\"<>]*)", re.IGNORECASE)
_HASH = re.compile(r"#sha256=[0-9a-f]{1,64}", re.IGNORECASE)


def redacted_url(name: str) -> str:
    """Return a URL without user name, password, query and fragment; any other text unchanged.

    A hash is kept, ``#sha256=...``: as a model's name, the rest still identifies the file in the cache.
    """
    match = _WHOLE.fullmatch(name.strip())
    return match[1] + _bare(match[2]) if match else name


def redacted(text: str) -> str:
    """Return text with each URL in it redacted as by `redacted_url`."""
    return _WITHIN.sub(lambda match: match[1] + _bare(match[2]), text)


def _bare(rest: str) -> str:
    pinned = _HASH.search(rest)
    path = re.split(r"[?#]", _without_login(rest), maxsplit=1)[0]
    return path + (pinned[0] if pinned else "")


def _without_login(rest: str) -> str:
    host = re.split(r"[/\\?#]", rest, maxsplit=1)[0]
    _, colon, port = host.rpartition(":")
    if "@" in host:
        return rest[host.rindex("@") + 1 :]
    if colon and port and not port.isdecimal():  # a password with a slash, which should have been escaped
        return rest.rpartition("@")[2]
    return rest
