"""Parse and check arguments. No torch."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from napari_samexp.errors import PromptError, SettingsError, VideoError, sam1_has_no_memory
from napari_samexp.sam.variants import VARIANTS, Sam1Variant
from napari_samexp.types import Prompt

__all__ = ["frame_numbers", "frame_slice", "prompt_of", "require_memory", "require_one_of", "require_output"]


POINT = "two numbers X,Y such as 320,200"
BOX = "four numbers X0,Y0,X1,Y1 such as 10,20,300,200"


def prompt_of(points: Iterable[str], background: Iterable[str], box: str | None) -> Prompt:
    """Return the prompt that texts such as ``"320,200"`` describe.

    Raises
    ------
    PromptError
        If a text has the wrong count of numbers, or there is neither an object point nor a box.
    """
    prompt = Prompt.from_lists(
        objects=[_numbers(text, 2, "--point", POINT) for text in points],
        background=[_numbers(text, 2, "--background", POINT) for text in background],
        box=None if box is None else _numbers(box, 4, "--box", BOX),
    )
    if prompt.box_xyxy is None and 1 not in prompt.labels:
        raise PromptError(
            "The prompt does not say where the object is; give at least one --point X,Y or a --box."
        )
    return prompt


def _numbers(text: str, count: int, option: str, expected: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        raise PromptError(f"{option} is {text!r}; give {expected}.")
    return values


def frame_slice(text: str | None) -> slice:
    """Return the slice that ``"A:B"`` means; `SettingsError` if the text is malformed."""
    match = re.fullmatch(r"(-?[0-9]{1,9})?:(-?[0-9]{1,9})?", (text or ":").strip())
    if match is None:
        raise SettingsError(
            f"--frames is {text!r}; give A:B such as 0:100, -50: or :200 (B is not included)."
        )
    return slice(*(None if part is None else int(part) for part in match.groups()))


def frame_numbers(frames: slice, count: int, *, backward: bool) -> range:
    """Return the frames that a slice selects from a video, in tracking order; `VideoError` if there are none."""
    chosen = range(count)[frames]
    if not chosen:
        ends = ("" if end is None else str(end) for end in (frames.start, frames.stop))
        raise VideoError(
            f"--frames {':'.join(ends)} picks no frame; the video has {count}, 0 to {count - 1}."
        )
    return chosen[::-1] if backward else chosen


def require_output(option: str, path: Path, files: Mapping[str, Path], folder: Path | None = None) -> None:
    """Raise `SettingsError` unless a file can be written at `path` without harming other files.

    Parameters
    ----------
    files : mapping of str to Path
        Files that `path` must not overwrite, by what messages call them.
    folder : Path, optional
        A folder that `path` must not lie in.
    """
    try:
        target = path.resolve()
    except (OSError, RuntimeError, ValueError):
        raise SettingsError(f"{option} is {str(path)!r}, which is not a path that can be used.") from None
    for name, other in files.items():
        if _is_same(target, other.resolve()):
            raise SettingsError(f"{option} {path} would overwrite {name}; choose another path.")
    if folder is not None and folder.resolve() in target.parents:
        raise SettingsError(
            f"{option} {path} lies in {folder}, which must hold nothing else; choose another path."
        )
    if target.is_dir():
        raise SettingsError(f"{option} {path} is a folder; give the path of a file.")
    if not target.parent.is_dir():
        raise SettingsError(f"The folder of {option} {path} does not exist; make it first.")
    if not os.access(target.parent, os.W_OK):
        raise SettingsError(f"The folder of {option} {path} cannot be written; choose another.")


def _is_same(target: Path, other: Path) -> bool:
    try:
        # samefile finds hard links, and names that differ in case on a disk that ignores it
        return target == other or target.samefile(other)
    except OSError:
        return False


def require_memory(model: str) -> None:
    """Raise `PriorError` if a model is a SAM 1 model, before its weights are downloaded in vain."""
    if isinstance(VARIANTS.get(model), Sam1Variant):
        raise sam1_has_no_memory(model)


def require_one_of(first: str, second: str, both: bool) -> None:
    """Raise `SettingsError` if two options that exclude each other are both given."""
    if both:
        raise SettingsError(f"{first} and {second} exclude each other; give one of them.")
