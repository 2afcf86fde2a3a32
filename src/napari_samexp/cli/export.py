"""``napari-samexp export``: labels in the formats of other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from napari_samexp._text import one_line
from napari_samexp.cli.arguments import frame_slice, require_output
from napari_samexp.cli.folders import require_folder
from napari_samexp.cli.options import Labels
from napari_samexp.cli.progress import Update, progress
from napari_samexp.errors import SettingsError, StoreError

if TYPE_CHECKING:
    from napari_samexp.measure.masks import Masks

__all__ = ["KINDS", "export"]

Kind = Literal["tiff", "png", "coco", "ome-zarr", "overlay", "table", "tracks"]
KINDS = {
    "tiff": "one TIFF, a page per frame",
    "png": "a folder of PNG files in the DAVIS palette",
    "coco": "JSON with COCO run-length encoding",
    "ome-zarr": "an OME-Zarr label image",
    "overlay": "an MP4 with the labels drawn over the video",
    "table": "CSV with area, centroid, box and scores of each frame",
    "tracks": "CSV of centroids for napari's Tracks layer",
}
KINDS_HELP = "; ".join(f"{kind}: {words}" for kind, words in KINDS.items()) + "."
FOLDERS = ("png", "ome-zarr")


def export(
    labels: Labels,
    to: Annotated[Kind, typer.Option(metavar="KIND", help=KINDS_HELP, show_default=False)],
    out: Annotated[
        Path, typer.Option(metavar="OUT", help="The file or folder to write.", show_default=False)
    ],
    video: Annotated[
        Path | None,
        typer.Option(metavar="VIDEO", help="The labels' video; needed for overlay, names frames in coco."),
    ] = None,
    frames: Annotated[
        str | None, typer.Option(metavar="A:B", help="Frames A to B - 1; by default all that are finished.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Write labels in a format that other programs read.

    Frames that a run has not finished are left out.
    """
    requested = frame_slice(frames)
    _require_target(out, labels, video, to, overwrite)

    from napari_samexp.measure.masks import open_masks

    with open_masks(labels) as masks:
        inside = range(masks.shape[0])[requested]
        chosen = [frame for frame in masks.frames if frame in inside]
        if not chosen:
            raise StoreError(f"{labels} has no finished frame among --frames; track first, or choose others.")
        with progress(one_line(out.name), "frames", quiet=False) as update:
            _write(to, out, masks, chosen, video, _reporter(chosen, update))
    typer.echo(f"{one_line(out)}: {len(chosen)} frames, {KINDS[to]}")


def _require_target(out: Path, labels: Path, video: Path | None, kind: Kind, overwrite: bool) -> None:
    inputs = {"the labels": labels} | ({} if video is None else {"the video": video})
    if kind == "overlay" and (video is None or out.suffix.lower() != ".mp4"):
        raise SettingsError("overlay needs --video and an --out that ends in .mp4; give both.")
    if kind in FOLDERS:
        require_folder("--out", out, inputs)
        return
    require_output("--out", out, inputs, labels if labels.is_dir() else None)
    if out.exists() and not overwrite:
        raise SettingsError(f"--out {out} exists; give --overwrite to replace it, or another path.")


def _write(
    kind: Kind,
    out: Path,
    masks: Masks,
    frames: Sequence[int],
    video: Path | None,
    report: Callable[[int], None],
) -> None:
    from napari_samexp.export import coco, images, ome_zarr
    from napari_samexp.measure.regions import regions_of, write_regions_csv

    if kind == "tiff":
        images.write_tiff(out, masks, frames=frames, on_frame=report)
    elif kind == "png":
        images.write_png_folder(out, masks, frames=frames, on_frame=report)
    elif kind == "coco":
        coco.write_coco(out, masks, video="" if video is None else video.name, frames=frames, on_frame=report)
    elif kind == "ome-zarr":
        ome_zarr.write_ome_zarr(out, masks, fps=_fps(video), frames=frames, on_frame=report)
    elif kind == "overlay":
        assert video is not None
        _write_overlay(out, masks, frames, video, report)
    elif kind == "table":
        write_regions_csv(out, regions_of(masks, _reported(frames, report)))
    else:
        _write_tracks(out, masks, _reported(frames, report))


def _write_overlay(
    out: Path, masks: Masks, frames: Sequence[int], video: Path, report: Callable[[int], None]
) -> None:
    from napari_samexp.io.video import open_video
    from napari_samexp.render.overlay import write_overlay

    with open_video(video) as source:
        write_overlay(out, source, masks, frames=_reported(frames, report), names=masks.names)


def _write_tracks(out: Path, masks: Masks, frames: Iterable[int]) -> None:
    from napari_samexp.io.csv_file import write_csv
    from napari_samexp.measure.regions import regions_of, track_points

    data, features = track_points(regions_of(masks, frames))
    rows = [(int(i), int(t), y, x, *more) for (i, t, y, x), more in zip(data, zip(*features.values()))]
    write_csv(out, ("track", "frame", "y", "x", *features), rows)


def _fps(video: Path | None) -> float | None:
    if video is None:
        return None
    from napari_samexp.io.video import open_video

    with open_video(video) as source:
        return source.fps


def _reported(frames: Sequence[int], report: Callable[[int], None]) -> Iterator[int]:
    for frame in frames:
        report(frame)
        yield frame


def _reporter(frames: Sequence[int], update: Update) -> Callable[[int], None]:
    done = {frame: number for number, frame in enumerate(frames)}
    return lambda frame: update(done[frame], len(frames))
