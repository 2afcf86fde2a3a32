"""From patterns and names to jobs with stores of their own. No torch."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from napari_samexp.batch.jobs import Job
from napari_samexp.errors import SamexpError, VideoError
from napari_samexp.io._paths import natural_key

__all__ = ["expand", "plan_jobs", "short_names"]

_UNSAFE = re.compile(r"[^\w.+-]+")


def expand(
    patterns: Sequence[str],
    error: type[SamexpError] = VideoError,
    expected: str = "videos, or a pattern such as clips/*.mp4",
) -> list[Path]:
    """Return the paths that patterns such as ``clips/*.mp4`` or ``**/*.tif`` match, each once.

    Parameters
    ----------
    patterns : sequence of str
        Paths, or patterns with ``*``, ``?``, ``[...]`` and ``**``. Matches of a pattern are in natural order
        (2 before 10).
    error, expected
        The error for a pattern without a match, and what its sentence asks for.

    Raises
    ------
    SamexpError
        If a pattern matches nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.exists():
            paths = [path]
        else:
            names = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
            paths = sorted(map(Path, names), key=lambda path: natural_key(str(path)))
        if not paths:
            raise error(f"{pattern!r} names no file or folder; give {expected}.")
        found |= dict.fromkeys(path.absolute() for path in paths)
    return list(found)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return a unique name for each path, valid as a file name; it does not depend on later paths.

    It is the file's name without its suffix; repeated names are numbered.
    """
    taken: set[str] = set()
    names = []
    for path in paths:
        plain = _UNSAFE.sub("_", path.stem if path.suffix else path.name).strip("._") or "unnamed"
        name, number = plain, 1
        while name.casefold() in taken:  # some disks ignore case
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def plan_jobs(rows: Mapping[str, Job], videos: Sequence[Path], out: Path) -> list[Job]:
    """Return a job for each row and video, row by row.

    Parameters
    ----------
    rows : mapping of str to Job
        A job for each row, by the row's name, which must be valid as a folder name; its name and the paths
        of video and store are replaced.
    videos : sequence of Path
    out : Path
        Labels go to ``out/labels/ROW/VIDEO.zarr``.
    """
    columns = short_names(videos)
    root = out.absolute() / "labels"
    return [
        replace(
            job,
            name=f"{row}/{column}",
            video=str(video.absolute()),
            store=str(root / row / f"{column}.zarr"),
        )
        for row, job in rows.items()
        for video, column in zip(videos, columns)
    ]
