"""``napari-samexp info``: describe a weights file."""

from __future__ import annotations

import json as to_json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_samexp._text import one_line
from napari_samexp.cli.model import pinned
from napari_samexp.cli.options import Json, Sha256
from napari_samexp.cli.progress import progress
from napari_samexp.sam.variants import VARIANTS, Sam1Variant, Variant
from napari_samexp.sam.weights.cache import cache_dir, fetch, is_address, locate, official_of
from napari_samexp.sam.weights.catalogue import OFFICIAL, STARTER, OfficialFile

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["info"]


def info(
    weights: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHTS",
            help="A model's name, the path of a weights file, or its address with --sha256.",
            show_default=False,
        ),
    ],
    sha256: Sha256 = None,
    json: Json = False,
) -> None:
    """Describe a weights file.

    Prints variant, size and hash, and whether it is an official file. No code in the file is run, and nothing
    is downloaded unless you give an address. Names are starter; sam2.1_hiera_tiny, _small, _base_plus and
    _large; the same with sam2_hiera; edgetam; sam_vit_b, sam_vit_l and sam_vit_h.
    """
    weights = pinned(weights, sha256)
    if is_address(weights):
        with progress("Downloading", "bytes", quiet=json) as update:
            fetch(weights, progress=update)
    path = locate(weights)
    facts = _not_downloaded(OFFICIAL[weights]) if path is None else _facts(weights, path)
    typer.echo(to_json.dumps(facts, indent=1) if json else _table(facts))


def _facts(weights: str, path: Path) -> dict[str, Any]:
    from napari_samexp.sam.weights.loading import identify_file

    variant, file = identify_file(path)
    official = official_of(path, file.sha256)
    return {
        **_size(variant),
        "path": str(path.absolute()),
        "bytes": path.stat().st_size,
        "sha256": file.sha256,
        "verified": official is not None,
        "official": official.name if official else None,
        "bundled": weights == STARTER,
        "downloaded": True,
    }


def _not_downloaded(entry: OfficialFile) -> dict[str, Any]:
    return {
        **_size(VARIANTS[entry.name]),
        "path": str(cache_dir() / entry.file),
        "bytes": entry.bytes,
        "sha256": entry.sha256 or None,
        **({} if entry.sha256 else {"git_blob": entry.git_blob}),
        "verified": False,
        "official": entry.name,
        "bundled": False,
        "downloaded": False,
        "url": entry.url,
        "licence": entry.licence,
    }


def _size(variant: Variant) -> dict[str, Any]:
    from napari_samexp.sam.weights.loading import build

    return {
        "variant": variant.name,
        "family": variant.family,
        "parameters": sum(parameter.numel() for parameter in build(variant).parameters()),
        "image_size": variant.image_size,
        "memory": not isinstance(variant, Sam1Variant),
    }


def _table(facts: dict[str, Any]) -> str:
    side, here = facts["image_size"], facts["downloaded"]
    rows = {
        "variant": facts["variant"],
        "family": facts["family"],
        "parameters": f"{facts['parameters']:,}",
        "image size": f"{side} x {side}",
        "memory": "yes" if facts["memory"] else "no: it segments, but cannot record or track",
        "file": f"{facts['path']}" if here else f"not downloaded; would go to {facts['path']}",
        "size": f"{facts['bytes'] / 1e6:,.1f} MB",
        **({"sha256": facts["sha256"]} if facts["sha256"] else {"git blob": facts["git_blob"]}),
        "verified": _verdict(facts),
    }
    if not here:
        rows |= {"address": facts["url"], "licence": facts["licence"]}
    return "\n".join(f"{name:<12}{one_line(value)}" for name, value in rows.items())


def _verdict(facts: dict[str, Any]) -> str:
    if not facts["downloaded"]:
        return "not downloaded; the hash above is what the file must have"
    if facts["verified"]:
        return f"yes, this is the official {facts['official']}"
    return "bundled with napari-samexp" if facts["bundled"] else "no, this is not an official file"
