"""The bundled documentation pages, so that help needs no network."""

from __future__ import annotations

import re
import unicodedata
from importlib import resources
from pathlib import Path, PurePosixPath

__all__ = ["ENCODINGS_TUTORIAL", "TROUBLESHOOTING", "TUTORIAL", "help_folder", "page", "slug"]

TUTORIAL = "tutorials/cat-to-fox.md"
TROUBLESHOOTING = "troubleshooting.md"
ENCODINGS_TUTORIAL = "tutorials/position-encodings.md"

_IMAGE = re.compile(r"^[ \t]*!\[[^\]]*\]\([^)]*\)\n?", re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_BOLD_LINE = re.compile(r"\n(\*\*)")  # "Why" and "Do" on lines of their own
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


def help_folder() -> Path:
    """Return the folder of the pages: in the installed package, or `docs/` of a checkout."""
    package = Path(str(resources.files("napari_samexp")))
    installed = package / "help"
    return installed if installed.is_dir() else package.parents[1] / "docs"


def page(name: str) -> str:
    """Return a page in Markdown for the help window: without images and without links to missing pages.

    Parameters
    ----------
    name : str
        Its path in `help_folder`, such as "troubleshooting.md".
    """
    text = (help_folder() / name).read_text(encoding="utf-8")
    text = _IMAGE.sub("", _COMMENT.sub("", text))
    return _LINK.sub(lambda found: _link(name, found), _BOLD_LINE.sub(r"  \n\1", text))


def slug(heading: str) -> str:
    """Return the anchor of a heading, as MkDocs generates it."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def _link(name: str, found: re.Match[str]) -> str:
    text, target = found[1], found[2]
    if "://" in target or target.startswith("#"):
        return found[0]
    path, _, anchor = target.partition("#")
    there = _resolved(PurePosixPath(name).parent / path)
    if not (help_folder() / there).is_file() or not there.endswith(".md"):
        return text
    return f"[{text}]({there}{'#' * bool(anchor)}{anchor})"


def _resolved(path: PurePosixPath) -> str:
    """Return a path with ".." resolved, never outside the folder."""
    parts: list[str] = []
    for part in path.parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
    return "/".join(parts)
