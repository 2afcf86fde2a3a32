"""``napari-samexp batch``: many priors on many videos, on several workers."""

from __future__ import annotations

import json as to_json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_samexp import __version__
from napari_samexp._text import one_line
from napari_samexp._urls import redacted_url
from napari_samexp.cli.arguments import (
    DEFAULTS,
    Device,
    Dtype,
    Graphs,
    Json,
    KeepAspect,
    Side,
    frame_slice,
    knob,
)
from napari_samexp.cli.many import (
    MANIFEST,
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
from napari_samexp.cli.tables import columns
from napari_samexp.errors import SamexpError
from napari_samexp.tracking.settings import TrackSettings

__all__ = ["batch"]

SHOWN_FAILURES = 20


class SomeFailed(SamexpError):
    """Some jobs failed; the others are kept."""


def batch(
    prior: Priors,
    out: Out,
    videos: Videos = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A model's name or path; by default the one that made a prior."),
    ] = None,
    image: Images = None,
    frames: Frames = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    retries: Retries = 1,
    side: Side = None,
    keep_aspect: KeepAspect = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    graphs: Graphs = False,
    recent: Annotated[int, knob("recent", "--recent")] = DEFAULTS.recent,
    pointers: Annotated[int, knob("pointers", "--pointers")] = DEFAULTS.pointers,
    prior_time: Annotated[Literal["fixed", "elapsed"], knob("prior_time", "--prior-time")] = "fixed",
    memories: Annotated[bool, knob("store_memories", "--memories/--no-memories")] = True,
    keep_lost: Annotated[bool, knob("keep_lost", "--keep-lost")] = False,
    backward: Annotated[bool, knob("direction", "--backward/--forward")] = False,
    json: Json = False,
) -> None:
    """Find the objects of many priors in many videos, each in each.

    Labels go to DIR/labels/PRIOR/VIDEO.zarr, and what ran with which hashes into DIR/manifest.jsonl. The same
    command again skips what is done, goes on with what was stopped and tries again what failed. Jobs run in
    processes of their own (Dask); one that is killed costs no finished frame.
    """
    settings = TrackSettings(
        recent=recent, pointers=pointers, store_memories=memories, keep_lost=keep_lost, side=side,
        square=not keep_aspect, prior_time=prior_time, direction="backward" if backward else "forward",
    )  # fmt: skip
    asked = Asked(
        settings,
        frame_slice(frames),
        () if model is None else (model,),
        tuple(image or ()),
        device,
        dtype,
        graphs,
    )
    paths = video_list(videos or ())
    runner = runner_for(workers, scheduler)
    rows = prior_rows(prior, asked)
    check_folder(out, rows, paths)

    from napari_samexp.batch.plan import plan_jobs

    jobs = plan_jobs(rows, paths, out)
    facts = {
        "version": __version__, "priors": len(rows), "videos": len(paths), "settings": settings.to_json(),
        "workers": redacted_url(scheduler) if scheduler else runner.workers,
    }  # fmt: skip
    outcome = run_all(jobs, runner, out, retries=retries, facts=facts, quiet=json)
    require_not_stopped(outcome, out)
    report = _report(outcome, out)
    typer.echo(to_json.dumps(report, indent=1) if json else _text(report))
    if outcome.failed:
        raise SomeFailed(
            f"{len(outcome.failed)} of {outcome.jobs} jobs failed; the same command tries them again."
        )


def _report(outcome: Outcome, out: Path) -> dict[str, Any]:
    tracked = sum(result.tracked for result in outcome.results.values())
    return {
        "jobs": outcome.jobs,
        "done": outcome.count("done"),
        "skipped": outcome.count("skipped"),
        "failed": outcome.failed,
        "tracked": tracked,
        "seconds": round(outcome.seconds, 3),
        "frames_per_s": round(tracked / max(outcome.seconds, 1e-9), 3),
        "labels": str(out / "labels"),
        "manifest": str(out / MANIFEST),
    }


def _text(report: dict[str, Any]) -> str:
    failed = list(report["failed"].items())
    rest = len(failed) - SHOWN_FAILURES
    lines = [
        f"{report['done']} jobs done, {report['skipped']} were done before, {len(failed)} failed",
        f"{report['tracked']} frames in {report['seconds']:.1f} s, {report['frames_per_s']:.3g} frames/s",
        *([""] if failed else []),
        *(columns(("failed", "why"), failed[:SHOWN_FAILURES]) if failed else []),
        *([f"and {rest} more, see the manifest"] if rest > 0 else []),
        "",
        f"labels    {one_line(report['labels'])}",
        f"manifest  {one_line(report['manifest'])}",
    ]
    return "\n".join(lines)
