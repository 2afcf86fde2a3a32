"""Options that several commands share, each declared once. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from napari_samexp.tracking.settings import TrackSettings

__all__ = [
    "DeviceOptions", "Dtype", "Device", "Frames", "Json", "KeepAspect", "Labels", "ModelName", "RecordedImages",
    "Sha256", "Side", "TrackingOptions", "flat_options", "normalized",
]  # fmt: skip

DEFAULTS = TrackSettings()
_SETTINGS = {field.name: field.metadata for field in fields(TrackSettings)}
_MULTI_VALUE = {"batch": ("--videos",), "compare": ("--videos", "--images")}
_OLD_NAMES = {"--picture": "--image", "--truth": "--ground-truth"}  # of version 0.1; not in the help
_WITH_OLD_NAMES = ("track", "batch", "compare", "evaluate")


def _setting(name: str, *flags: str) -> Any:
    """Return the option for a field of `TrackSettings`, with the help and limits of that field."""
    about = _SETTINGS[name]
    metavar = None if about["min"] is None else "N"
    return typer.Option(*flags, metavar=metavar, help=about["help"], min=about["min"], max=about["max"])


Labels = Annotated[
    Path,
    typer.Argument(
        metavar="LABELS", help="Labels: what `track` wrote, TIFF, PNG folder, zarr.", show_default=False
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="A model's name or path; by default the one that made the prior."),
]
Frames = Annotated[
    str | None,
    typer.Option(metavar="A:B", help="Frames A to B - 1; negative numbers count from the end."),
]
RecordedImages = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="IMAGE",
        help="A recorded image of the prior, needed for another model; may be repeated.",
    ),
]
Side = Annotated[int | None, _setting("side", "--side")]
KeepAspect = Annotated[bool, _setting("square", "--keep-aspect/--square")]
Device = Annotated[
    str,
    typer.Option(metavar="D", help="auto, cpu, cuda, cuda:1 or mps; auto uses a GPU if there is one."),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="T",
        help="auto, float32, fast, bfloat16 or float16; auto is fast on a GPU and float32 on a CPU; "
        "fast uses bfloat16 where it is faster.",
    ),
]
Sha256 = Annotated[
    str | None,
    typer.Option(
        "--sha256",
        metavar="HASH",
        help="The SHA-256 that the weights file must have; an https address needs it.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """What a model computes on, and in which dtype."""

    device: Device = "auto"
    dtype: Dtype = "auto"
    graphs: Annotated[
        bool, typer.Option("--graphs", help="Use CUDA graphs, which are faster, on an NVIDIA GPU.")
    ] = False


@dataclass(frozen=True, slots=True)
class TrackingOptions:
    """The fields of `TrackSettings` that a shell offers."""

    side: Side = None
    keep_aspect: KeepAspect = False
    recent: Annotated[int, _setting("recent", "--recent")] = DEFAULTS.recent
    pointers: Annotated[int, _setting("pointers", "--pointers")] = DEFAULTS.pointers
    prior_time: Annotated[Literal["fixed", "elapsed"], _setting("prior_time", "--prior-time")] = "fixed"
    memories: Annotated[bool, _setting("store_memories", "--memories/--no-memories")] = True
    keep_lost: Annotated[bool, _setting("keep_lost", "--keep-lost")] = False
    backward: Annotated[bool, _setting("direction", "--backward/--forward")] = False

    @property
    def settings(self) -> TrackSettings:
        """The settings that these options describe; `SettingsError` if a value is out of range."""
        return TrackSettings(
            recent=self.recent, pointers=self.pointers, store_memories=self.memories, keep_lost=self.keep_lost,
            side=self.side, square=not self.keep_aspect, prior_time=self.prior_time,
            direction="backward" if self.backward else "forward",
        )  # fmt: skip


def flat_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for Typer in which a parameter that is a dataclass becomes an option for each field."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    @wraps(command)
    def flat(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field: given.pop(field) for field in signature(group).parameters})
        command(**given)

    parameters: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        group = groups.get(parameter.name)
        one = {parameter.name: parameter} if group is None else signature(group).parameters
        parameters += _keyword_only(
            one, hints if group is None else get_type_hints(group, include_extras=True)
        )
    flat.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def _keyword_only(parameters: Mapping[str, Parameter], hints: Mapping[str, Any]) -> list[Parameter]:
    return [
        parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in parameters.items()
    ]


def normalized(arguments: Sequence[str]) -> list[str]:
    """Return arguments as Typer takes them: ``--videos a b c`` as ``--videos a --videos b --videos c``.

    A shell that expands ``--videos *.mp4`` puts all names after one option; Typer would take the second one
    for a prior. Words up to the next option belong to the option; an option without any is left out. Options
    of version 0.1 get the names that they have now.
    """
    command = next((word for word in arguments if not word.startswith("-")), "")
    multi_value = _MULTI_VALUE.get(command, ())
    old_names = _OLD_NAMES if command in _WITH_OLD_NAMES else {}
    out: list[str] = []
    option = ""
    for place, word in enumerate(arguments):
        if word == "--":
            return [*out, *arguments[place:]]
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            option = name if word in multi_value else ""
            out += [] if option else [old_names.get(name, name) + equals + value]
        else:
            out += [option, word] if option else [word]
    return out
