"""``napari-samexp compare``: what many priors see in many videos, as a matrix and as images."""

from __future__ import annotations

import json as to_json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_samexp import __version__
from napari_samexp._text import one_line
from napari_samexp.cli.arguments import DEFAULTS, Device, Dtype, Json, KeepAspect, Side, frame_slice, knob
from napari_samexp.cli.many import (
    Asked,
    Frames,
    Images,
    Out,
    Outcome,
    Priors,
    Retries,
    Scheduler,
    Videos,
    Workers,
    check_folder,
    prior_rows,
    require_not_stopped,
    run_all,
    runner_for,
    video_list,
)  # fmt: skip
from napari_samexp.cli.progress import progress
from napari_samexp.cli.tables import columns
from napari_samexp.errors import SettingsError
from napari_samexp.tracking.settings import TrackSettings

if TYPE_CHECKING:
    from napari_samexp.batch.jobs import Job
    from napari_samexp.batch.vary import Vary
    from napari_samexp.measure.comparison import Comparison

__all__ = ["compare"]

MATRIX, TABLE, HEAT_MAPS, SHEET, CURVES = (
    "comparison.json", "comparison.csv", "heat_maps.png", "best_and_worst.png", "vary.png"
)  # fmt: skip


def compare(
    prior: Priors,
    out: Out,
    videos: Videos = None,
    images: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN...", help="Images to look in, each on its own.", show_default=False),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL", help="A model's name or path; of several, each prior gets a row with each."
        ),
    ] = None,
    image: Images = None,
    vary: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=A,B,...",
            help="A row for each value of a setting, such as recent=0-6 or recordings=1,2.",
        ),
    ] = None,
    ground_truth: Annotated[
        Path | None,
        typer.Option(
            "--ground-truth",
            "--truth",
            metavar="DIR",
            help="True labels named like the videos; adds J&F to the matrix.",
        ),
    ] = None,
    frames: Frames = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    retries: Retries = 1,
    side: Side = None,
    keep_aspect: KeepAspect = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    recent: Annotated[int, knob("recent", "--recent")] = DEFAULTS.recent,
    pointers: Annotated[int, knob("pointers", "--pointers")] = DEFAULTS.pointers,
    prior_time: Annotated[Literal["fixed", "elapsed"], knob("prior_time", "--prior-time")] = "fixed",
    memories: Annotated[bool, knob("store_memories", "--memories/--no-memories")] = True,
    keep_lost: Annotated[bool, knob("keep_lost", "--keep-lost")] = False,
    json: Json = False,
) -> None:
    """Compare what priors find in videos or images.

    Tracks each prior through each video, and writes comparison.json and .csv, heat maps of mean presence, of
    the share of frames found, of mean predicted IoU and of the agreement (J) with the other rows' masks, and
    a sheet of the best and worst frames. What is tracked already is not tracked again. Without --workers or
    --scheduler all runs in this process.
    """
    settings = TrackSettings(
        recent=recent, pointers=pointers, store_memories=memories, keep_lost=keep_lost, side=side,
        square=not keep_aspect, prior_time=prior_time,
    )  # fmt: skip
    asked = Asked(settings, frame_slice(frames), tuple(model or ()), tuple(image or ()), device, dtype)
    paths = video_list([*(videos or ()), *(images or ())], "--videos or --images")
    runner = runner_for(workers, scheduler, here=True)
    changed = _parsed(vary)
    rows = prior_rows(prior, asked)
    check_folder(out, rows, paths, (MATRIX, TABLE, HEAT_MAPS, SHEET, CURVES))
    rows, curves = _varied(rows, changed)

    from napari_samexp.batch.plan import plan_jobs, short_names

    jobs = plan_jobs(rows, paths, out)
    ground_truths = _ground_truths(ground_truth, paths)
    facts = {"version": __version__, "rows": list(rows), "settings": settings.to_json(), "vary": vary}
    outcome = run_all(jobs, runner, out, retries=retries, facts=facts, quiet=json)
    require_not_stopped(outcome, out)
    made = _compared(list(rows), short_names(paths), jobs, ground_truths, outcome, quiet=json)
    _write(out, made, changed, curves)
    typer.echo(to_json.dumps(_facts(made, outcome, out), indent=1) if json else _text(made, outcome, out))


def _parsed(vary: str | None) -> Vary | None:
    from napari_samexp.batch.vary import parse_vary

    return None if vary is None else parse_vary(vary)


def _varied(rows: dict[str, Job], vary: Vary | None) -> tuple[dict[str, Job], dict[str, list[int]]]:
    """Return a row a value, and for each curve the places of its rows."""
    if vary is None:
        return rows, {}
    out: dict[str, Job] = {}
    curves: dict[str, list[int]] = {}
    for name, like in rows.items():
        for word, job in zip(vary.words, vary.jobs(like)):
            curves.setdefault(name, []).append(len(out))
            out[f"{name}.{vary.name}={word}"] = job
    return out, curves


def _ground_truths(folder: Path | None, videos: Sequence[Path]) -> list[Path | None]:
    """Return the true labels of each video: what is called as it is, whatever the ending."""
    if folder is None:
        return [None] * len(videos)
    if not folder.is_dir():
        raise SettingsError(
            f"--ground-truth {folder} is no folder; give one that holds labels named like the videos."
        )
    there = {entry.name.split(".")[0]: entry for entry in sorted(folder.iterdir())}
    found = [there.get(video.name.split(".")[0]) for video in videos]
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
    outcome: Outcome,
    *,
    quiet: bool,
) -> Comparison:
    from napari_samexp.measure.comparison import Cell, Comparison, compare_column, measure_cell

    failed = outcome.failed
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


def _facts(made: Comparison, outcome: Outcome, out: Path) -> dict[str, Any]:
    return {
        "rows": made.rows,
        "columns": made.columns,
        **{name: _numbers(made.matrix(name).tolist()) for name in made.measures},
        "failed": outcome.failed,
        "tracked": sum(result.tracked for result in outcome.results.values()),
        "out": str(out),
    }


def _numbers(rows: list[list[float]]) -> list[list[float | None]]:
    return [[round(value, 6) if math.isfinite(value) else None for value in row] for row in rows]


def _text(made: Comparison, outcome: Outcome, out: Path) -> str:
    from napari_samexp.measure.comparison import MEASURES

    lines = []
    for name in made.measures:
        rows = [
            (*(f"{v:.2f}" if math.isfinite(v) else "-" for v in values), row)
            for row, values in zip(made.rows, made.matrix(name).tolist())
        ]
        lines += [MEASURES[name], *columns((*made.columns, ""), rows), ""]
    lines += [one_line(f"{job} failed: {why}") for job, why in outcome.failed.items()]
    return "\n".join([*lines, f"{one_line(out)}: {TABLE}, {MATRIX}, {HEAT_MAPS}, {SHEET}"])
