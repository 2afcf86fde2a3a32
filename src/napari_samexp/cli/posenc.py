"""``napari-samexp posenc``: position encodings as arrays, image stacks and contact sheets."""

from __future__ import annotations

import json as to_json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_samexp._text import one_line
from napari_samexp._urls import redacted_url
from napari_samexp.cli.arguments import require_output
from napari_samexp.cli.options import Json
from napari_samexp.cli.progress import progress
from napari_samexp.errors import SettingsError
from napari_samexp.posenc.map import PosencMap, frequency_order, require_format
from napari_samexp.sam.encoding_spec import ABSOLUTE, MAP_DTYPES, MAX_SIDE, require_grid
from napari_samexp.sam.weights.cache import fetch
from napari_samexp.sam.weights.catalogue import STARTER

if TYPE_CHECKING:
    from napari_samexp.posenc.tables import PositionTables

__all__ = ["posenc"]


@dataclass(frozen=True, slots=True)
class MapOptions:
    """Which of a model's position encodings is shown, and how."""

    grid: Annotated[
        str | None,
        typer.Option(metavar="H,W", help=f"Tokens, 1 to {MAX_SIDE} each; by default the model's own grid."),
    ] = None
    window_tile: Annotated[
        bool, typer.Option("--window-tile/--no-window-tile", help="Add SAM 2's tiled window embedding.")
    ] = True
    part: Annotated[
        str,
        typer.Option(
            metavar="P",
            help="absolute; for SAM 1 relative:BLOCK; for SAM 2 window, rotary, memory:1 to memory:6, "
            "memory:prior or times.",
        ),
    ] = ABSOLUTE
    dtype: Annotated[str, typer.Option(metavar="T", help=f"The compute dtype: {', '.join(MAP_DTYPES)}.")] = (
        "float32"
    )
    channels: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Channels such as 0,7,20:30; by default all, and 24 on a sheet."),
    ] = None
    per_channel: Annotated[
        bool, typer.Option("--per-channel", help="On a sheet, give each channel its own contrast.")
    ] = False


def posenc(
    out: Annotated[
        Path,
        typer.Option(
            metavar="MAPS",
            help="maps.npy (the array), maps.tif (an ImageJ stack) or maps.png (a contact sheet).",
            show_default=False,
        ),
    ],
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="A model's name or weights file, by default the starter; repeat it to compare models on a sheet.",
            show_default=False,
        ),
    ] = None,
    options: MapOptions,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    json: Json = False,
) -> None:
    """Save the position encoding that an image encoder adds to its patch tokens, or another of the model's.

    Reads only the position tables of a weights file. Prints the shape, the range, and how well channels are
    ordered by frequency (rank correlation; 1 is from low to high).
    """
    names = model or [STARTER]
    _check(out, names, overwrite)
    channels = None if options.channels is None else _channels(options.channels)
    maps = _maps(names, options, quiet=json)
    if out.suffix.lower() == ".png":
        from napari_samexp.posenc.sheet import save_sheet  # and Pillow

        save_sheet(out, maps, channels=channels, per_channel=options.per_channel)
    else:
        maps[0].save(out, channels=channels)
    facts = {"out": str(out), "maps": [_facts(each) for each in maps]}
    typer.echo(to_json.dumps(facts, indent=1) if json else _text(facts))


def _maps(names: Sequence[str], options: MapOptions, *, quiet: bool) -> list[PosencMap]:
    from napari_samexp.posenc.api import map_of

    grid = None if options.grid is None else _grid(options.grid)
    return [
        map_of(
            _tables(name, quiet=quiet),
            options.part,
            grid,
            window_tile=options.window_tile,
            dtype=options.dtype,
        )
        for name in names
    ]


def _check(out: Path, names: Sequence[str], overwrite: bool) -> None:
    """Raise unless the output has a known format and can be written without harm."""
    if require_format(out) != ".png" and len(names) > 1:
        raise SettingsError(
            f"Several models go on one comparison sheet, and --out is {out}; give a path that ends in .png."
        )
    require_output("--out", out, {f"the weights {name}": Path(name) for name in names})
    if out.exists() and not overwrite:
        raise SettingsError(f"{out} exists; give --overwrite to replace it, or another --out.")


def _grid(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*[,x]\s*([0-9]{1,9})\s*", text)
    if match is None:
        raise SettingsError(f"--grid is {text!r}; give H,W in tokens such as 64,64.")
    return require_grid((int(match[1]), int(match[2])))


def _channels(text: str) -> list[int]:
    numbers: list[int] = []
    for item in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,5})\s*(?::\s*([0-9]{1,5})\s*)?", item)
        if match is None:
            raise SettingsError(f"--channels is {text!r}; give numbers and ranges such as 0,7,20:30.")
        first = int(match[1])
        numbers += range(first, int(match[2]) if match[2] else first + 1)
    if not numbers:
        raise SettingsError(f"--channels {text} picks no channel; the end of a range is not included.")
    return numbers


def _tables(name: str, *, quiet: bool) -> PositionTables:
    from napari_samexp.posenc.tables import read_tables

    with progress(f"Downloading {one_line(redacted_url(name))}", "bytes", quiet=quiet) as update:
        fetch(name, progress=update)
    return read_tables(name)


def _facts(each: PosencMap) -> dict[str, Any]:
    order = frequency_order(each.frequencies())
    return {
        **each.facts,
        "minimum": float(each.values.min()),
        "maximum": float(each.values.max()),
        "frequency_order": round(order, 4),
    }


def _text(facts: dict[str, Any]) -> str:
    lines = []
    for each in facts["maps"]:
        channels, height, width = each["shape"]
        tile = "" if each["window_tile"] else " without window tile"
        lines += [
            f"{one_line(each['model'])}: {each['part']}{tile}, {channels} channels of {height} x {width}, {each['dtype']}",
            f"  from {each['minimum']:.4g} to {each['maximum']:.4g}; order by frequency {each['frequency_order']:+.2f}",
        ]
    return "\n".join([*lines, f"Saved to {one_line(facts['out'])}"])
