"""``napari-samexp compare``: what many priors see in many videos, as a matrix and as images."""

from __future__ import annotations

import json as to_json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_samexp import __version__
from napari_samexp._text import one_line
from napari_samexp.cli.jobs import (
    BatchOptions,
    BatchResult,
    Priors,
    check_folder,
    prior_rows,
    run_all,
    runner_for,
    video_list,
)
from napari_samexp.cli.options import DeviceOptions, Json, TrackingOptions
from napari_samexp.cli.progress import progress
from napari_samexp.cli.tables import columns
from napari_samexp.errors import SettingsError

if TYPE_CHECKING:
    from napari_samexp.batch.jobs import Job
    from napari_samexp.batch.vary import Vary
    from napari_samexp.measure.comparison import Comparison

__all__ = ["compare"]

MATRIX, TABLE, HEAT_MAPS, SHEET, CURVES = (
    "comparison.json", "comparison.csv", "heat_maps.png", "best_and_worst.png", "vary.png"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What is compared."""

    images: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN...", help="Images to look in, each independently.", show_default=False),
    ] = None
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL", help="A model's name or path; repeat it for a row per prior and model."
        ),
    ] = None
    vary: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=A,B,...",
            help="Add a row for each value of a setting, such as recent=0-6 or recordings=1,2.",
        ),
    ] = None
    ground_truth: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Ground truth, label files named like the videos; adds J&F to the matrix."
        ),
    ] = None


def compare(
    prior: Priors,
    *,
    options: BatchOptions,
    compared: CompareOptions,
    hardware: DeviceOptions,
    tracking: TrackingOptions,
    json: Json = False,
) -> None:
    """Compare what priors find in videos or images.

    Tracks each prior through each video, and writes comparison.json and .csv, heat maps of mean presence, of
    the share of frames in which the object is found, of mean predicted IoU and of the agreement (J) with the
    other rows' masks, and a sheet of the best and worst frames. What was tracked before is not tracked again.
    Without --workers or --scheduler, all runs in this process.
    """
    paths = video_list([*(options.videos or ()), *(compared.images or ())], "--videos or --images")
    runner = runner_for(options, in_process=True)
    vary = _parsed(compared.vary)
    rows = prior_rows(prior, compared.model or (), options, hardware, tracking)
    check_folder(options.out, rows, paths, (MATRIX, TABLE, HEAT_MAPS, SHEET, CURVES))
    rows, curves = _varied(rows, vary)

    from napari_samexp.batch.plan import plan_jobs, short_names

    jobs = plan_jobs(rows, paths, options.out)
    ground_truths = _ground_truths(compared.ground_truth, paths)
    settings = tracking.settings.to_json()
    facts = {"version": __version__, "rows": list(rows), "settings": settings, "vary": compared.vary}
    ended = run_all(jobs, runner, options, facts, quiet=json)
    made = _compared(list(rows), short_names(paths), jobs, ground_truths, ended.failed, quiet=json)
    _write(options.out, made, vary, curves)
    typer.echo(
        to_json.dumps(_facts(made, ended, options.out), indent=1) if json else _text(made, ended, options.out)
    )


def _parsed(vary: str | None) -> Vary | None:
    from napari_samexp.batch.vary import parse_vary

    return None if vary is None else parse_vary(vary)


def _varied(rows: dict[str, Job], vary: Vary | None) -> tuple[dict[str, Job], dict[str, list[int]]]:
    """Return a row for each value, and for each curve the indices of its rows."""
    if vary is None:
        return rows, {}
    out: dict[str, Job] = {}
    curves: dict[str, list[int]] = {}
    for name, row in rows.items():
        for word, job in zip(vary.words, vary.jobs(row)):
            curves.setdefault(name, []).append(len(out))
            out[f"{name}.{vary.name}={word}"] = job
    return out, curves


def _ground_truths(folder: Path | None, videos: Sequence[Path]) -> list[Path | None]:
    """Return the ground truth of each video: the entry of the same name, whatever its suffix."""
    if folder is None:
        return [None] * len(videos)
    if not folder.is_dir():
        raise SettingsError(
            f"--ground-truth {folder} is no folder; give a folder of labels named like the videos."
        )
    entries = {entry.name.split(".")[0]: entry for entry in sorted(folder.iterdir())}
    found = [entries.get(video.name.split(".")[0]) for video in videos]
    if not any(found):
        raise SettingsError(
            f"--ground-truth {folder} holds nothing that is named like a video; name labels like {videos[0].stem}.tif."
        )
    return found


def _compared(
    rows: list[str],
    names: list[str],
    jobs: Sequence[Job],
    ground_truths: Sequence[Path | None],
    failed: Mapping[str, str],
    *,
    quiet: bool,
) -> Comparison:
    from napari_samexp.measure.comparison import Cell, Comparison, compare_column, measure_cell

    by_column: list[list[Cell]] = []
    agreement = {}
    with progress("Comparing", "frames", quiet=quiet) as update:
        for place, name in enumerate(names):
            cells = [
                measure_cell(
                    Cell(row, name, job.video, job.store, error=failed.get(job.name, "")),
                    ground_truths[place],
                )
                for row, job in zip(rows, jobs[place :: len(names)])
            ]
            agreed, agreement[name] = compare_column(cells, update)
            by_column.append(agreed)
    cells_by_row = tuple(column[row] for row in range(len(rows)) for column in by_column)
    return Comparison(tuple(rows), tuple(names), cells_by_row, agreement)


def _write(out: Path, made: Comparison, vary: Vary | None, curves: dict[str, list[int]]) -> None:
    from napari_samexp.render.comparison import best_and_worst, heat_maps, vary_charts
    from napari_samexp.render.overlay import write_png

    made.save(out / MATRIX)
    made.write_csv(out / TABLE)
    write_png(out / HEAT_MAPS, heat_maps(made))
    write_png(out / SHEET, best_and_worst(made))
    if vary is not None:
        write_png(out / CURVES, vary_charts(vary.name, vary.words, curves, made))


def _facts(made: Comparison, ended: BatchResult, out: Path) -> dict[str, Any]:
    return {
        "rows": made.rows,
        "columns": made.columns,
        **{name: _numbers(made.matrix(name).tolist()) for name in made.measures},
        "failed": ended.failed,
        "tracked": ended.tracked,
        "out": str(out),
    }


def _numbers(rows: list[list[float]]) -> list[list[float | None]]:
    return [[round(value, 6) if math.isfinite(value) else None for value in row] for row in rows]


def _text(made: Comparison, ended: BatchResult, out: Path) -> str:
    from napari_samexp.measure.comparison import MEASURES

    lines = []
    for name in made.measures:
        rows = [
            (*(f"{v:.2f}" if math.isfinite(v) else "-" for v in values), row)
            for row, values in zip(made.rows, made.matrix(name).tolist())
        ]
        lines += [MEASURES[name], *columns((*made.columns, ""), rows), ""]
    lines += [one_line(f"{job} failed: {why}") for job, why in ended.failed.items()]
    return "\n".join([*lines, f"{one_line(out)}: {TABLE}, {MATRIX}, {HEAT_MAPS}, {SHEET}"])
