"""One setting over several values: the rows of an ablation. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from napari_samexp.batch.jobs import Job
from napari_samexp.errors import SettingsError
from napari_samexp.tracking.settings import TrackSettings

__all__ = ["NAMES", "Vary", "parse_vary"]

MAX_RECORDINGS = 64
NAMES = (*(field.name for field in fields(TrackSettings)), "recordings")
_RANGE = re.compile(r"(\d{1,4})-(\d{1,4})")
_FLAGS = {"on": True, "true": True, "off": False, "false": False}


@dataclass(frozen=True, slots=True)
class Vary:
    """A setting of tracking, or the number of recordings, and its values.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    values : tuple
    """

    name: str
    values: tuple[Any, ...]

    @property
    def words(self) -> list[str]:
        """The values as they are written in a shell."""
        return [_word(value) for value in self.values]

    def jobs(self, job: Job) -> list[Job]:
        """Return a copy of a job for each value.

        Raises
        ------
        SettingsError
            If a value is out of range.
        """
        return [self._with(job, value) for value in self.values]

    def _with(self, job: Job, value: Any) -> Job:
        if self.name != "recordings":
            return replace(job, settings=replace(job.settings, **{self.name: value}))
        if type(value) is not int or not 1 <= value <= MAX_RECORDINGS:
            raise SettingsError(f"{self.name} is {value!r}; give whole numbers from 1 to {MAX_RECORDINGS}.")
        return replace(job, recordings=value)


def parse_vary(text: str) -> Vary:
    """Parse ``recent=0-6``, ``prior_time=fixed,elapsed`` or ``pointers=0,15``.

    Raises
    ------
    SettingsError
        If the name is unknown, or there are fewer than two values.
    """
    name, _, values_text = text.partition("=")
    name = name.strip().replace("-", "_")
    if name not in NAMES:
        raise SettingsError(f"--vary {text!r} has no known name; choose one of {', '.join(NAMES)}.")
    values = tuple(value for part in values_text.split(",") for value in _values(part.strip()))
    if len(set(values)) < 2:
        raise SettingsError(
            f"--vary {text!r} has fewer than two values; give NAME=A,B,... such as recent=0-6."
        )
    return Vary(name, tuple(dict.fromkeys(values)))


def _values(text: str) -> Sequence[Any]:
    match = _RANGE.fullmatch(text)
    if match and int(match[1]) <= int(match[2]):
        return range(int(match[1]), int(match[2]) + 1)
    if text.lower() in _FLAGS:
        return [_FLAGS[text.lower()]]
    try:
        value = json.loads(text)
    except ValueError:
        return [text] if text else []
    return [value] if isinstance(value, int) else [text]


def _word(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
