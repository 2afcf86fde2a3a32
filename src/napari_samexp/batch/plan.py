"""From what people type to jobs with names and stores of their own. No torch."""

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
    """Return the paths that patterns such as ``clips/*.mp4`` or ``**/*.tif`` name, each once.

    Parameters
    ----------
    patterns : sequence of str
        ``*``, ``?``, ``[...]`` and ``**`` stand for names; what has none of them is a path. What a pattern
        names comes in natural order (2 before 10).
    error, expected
        What is raised, and what it asks for.

    Raises
    ------
    SamexpError
        If one names nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        there = Path(pattern).expanduser()
        if there.exists():
            paths = [there]
        else:
            names = glob.glob(str(there), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
            paths = sorted(map(Path, names), key=lambda path: natural_key(str(path)))
        if not paths:
            raise error(f"{pattern!r} names no file or folder; give {expected}.")
        found |= dict.fromkeys(path.absolute() for path in paths)
    return list(found)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return a name a path, unique, fit for a file's name, and the same whatever else is in the list's end.

    The file's name without its ending; of those that are equal, the later ones are counted.
    """
    taken: set[str] = set()
    names = []
    for path in paths:
        plain = _UNSAFE.sub("_", path.stem if path.suffix else path.name).strip("._") or "unnamed"
        name, number = plain, 1
        while name.casefold() in taken:  # some disks do not tell upper case from lower
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
        What the jobs of a row have in common, by the row's name, which is fit for a folder; names and the
        paths of video and store are replaced.
    videos : sequence of Path
    out : Path
        Labels go to ``out/labels/ROW/VIDEO.zarr``.
    """
    columns = short_names(videos)
    root = out.absolute() / "labels"
    return [
        replace(
            like,
            name=f"{row}/{column}",
            video=str(video.absolute()),
            store=str(root / row / f"{column}.zarr"),
        )
        for row, like in rows.items()
        for video, column in zip(videos, columns)
    ]
