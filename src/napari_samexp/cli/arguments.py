"""What people type, checked and turned into the types of the other modules. No torch."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_samexp.errors import PromptError, SettingsError, VideoError, sam1_has_no_memory
from napari_samexp.sam.variants import VARIANTS, Sam1Variant
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import Prompt

__all__ = [
    "DEFAULTS", "Device", "Dtype", "Graphs", "Json", "KeepAspect", "Sha256", "Side", "frame_numbers", "frame_slice", "knob",
    "prompt_of", "require_memory", "require_one_of", "require_output",
]  # fmt: skip

DEFAULTS = TrackSettings()
_KNOBS = {field.name: field.metadata for field in fields(TrackSettings)}


def knob(name: str, *flags: str) -> Any:
    """Return the option for a field of `TrackSettings`, with the words and limits that the field has."""
    about = _KNOBS[name]
    metavar = None if about["min"] is None else "N"
    return typer.Option(*flags, metavar=metavar, help=about["help"], min=about["min"], max=about["max"])


Side = Annotated[int | None, knob("side", "--side")]
KeepAspect = Annotated[bool, knob("square", "--keep-aspect/--square")]
Device = Annotated[
    str,
    typer.Option(metavar="D", help="auto, cpu, cuda, cuda:1 or mps; auto takes a GPU where there is one."),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="T",
        help="auto, float32, fast, bfloat16 or float16; auto is fast on a GPU, exact on a CPU; fast tries the CPU.",
    ),
]
Graphs = Annotated[
    bool,
    typer.Option(
        "--graphs", help="On an NVIDIA GPU: record a frame's work and start it as one piece, which is faster."
    ),
]
Sha256 = Annotated[
    str | None,
    typer.Option(
        "--sha256",
        metavar="HASH",
        help="What the weights file must be; with it, an https address may be given in the place of a path.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def prompt_of(points: Iterable[str], background: Iterable[str], box: str | None) -> Prompt:
    """Return the prompt that texts such as ``"320,200"`` describe.

    Raises
    ------
    PromptError
        If one is not the right count of numbers, or there is neither an object point nor a box.
    """
    prompt = Prompt.from_lists(
        objects=[_numbers(text, 2, "--point", "two numbers X,Y such as 320,200") for text in points],
        background=[
            _numbers(text, 2, "--background", "two numbers X,Y such as 320,200") for text in background
        ],
        box=None
        if box is None
        else _numbers(box, 4, "--box", "four numbers X0,Y0,X1,Y1 such as 10,20,300,200"),
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
    """Return the slice that ``"A:B"`` means; `SettingsError` if it is none."""
    match = re.fullmatch(r"(-?[0-9]{1,9})?:(-?[0-9]{1,9})?", (text or ":").strip())
    if match is None:
        raise SettingsError(
            f"--frames is {text!r}; give A:B such as 0:100, -50: or :200 (B is not included)."
        )
    return slice(*(None if part is None else int(part) for part in match.groups()))


def frame_numbers(wanted: slice, count: int, *, backward: bool) -> range:
    """Return the frames that a slice picks from a video, in the order of tracking; `VideoError` if none."""
    chosen = range(count)[wanted]
    if not chosen:
        ends = ("" if end is None else str(end) for end in (wanted.start, wanted.stop))
        raise VideoError(
            f"--frames {':'.join(ends)} picks no frame; the video has {count}, 0 to {count - 1}."
        )
    return chosen[::-1] if backward else chosen


def require_output(option: str, path: Path, files: Mapping[str, Path], folder: Path | None = None) -> None:
    """Raise unless a file can be written at `path` without harming what is there.

    Parameters
    ----------
    files : mapping of str to Path
        What the path must not be, by what it is called.
    folder : Path, optional
        Where the path must not lie.

    Raises
    ------
    SettingsError
        Before anything is written.
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
        return target == other or target.samefile(
            other
        )  # a hard link, or upper case on a disk that does not mind
    except OSError:
        return False


def require_memory(model: str) -> None:
    """Raise `PriorError` if a name is one of SAM 1's, before gigabytes of it are downloaded in vain."""
    if isinstance(VARIANTS.get(model), Sam1Variant):
        raise sam1_has_no_memory(model)


def require_one_of(first: str, second: str, both: bool) -> None:
    """Raise `SettingsError` where two options exclude each other and both are given."""
    if both:
        raise SettingsError(f"{first} and {second} exclude each other; give one of them.")
