"""``napari-samexp batch``: many priors on many videos, on several workers."""

from __future__ import annotations

import json as to_json
from typing import Any

import typer

from napari_samexp import __version__
from napari_samexp._text import one_line
from napari_samexp._urls import redacted_url
from napari_samexp.cli.jobs import (
    MANIFEST,
    BatchOptions,
    BatchResult,
    Priors,
    check_folder,
    prior_rows,
    run_all,
    runner_for,
    video_list,
)
from napari_samexp.cli.options import DeviceOptions, Json, ModelName, TrackingOptions
from napari_samexp.cli.tables import columns
from napari_samexp.errors import SamexpError

__all__ = ["batch"]

SHOWN_FAILURES = 20


class SomeFailed(SamexpError):
    """Some jobs failed; the results of the others are kept."""


def batch(
    prior: Priors,
    *,
    options: BatchOptions,
    model: ModelName = None,
    hardware: DeviceOptions,
    tracking: TrackingOptions,
    json: Json = False,
) -> None:
    """Find the objects of each prior in each video.

    Labels go to DIR/labels/PRIOR/VIDEO.zarr; DIR/manifest.jsonl lists what ran, with all hashes. The same
    command again skips jobs that are done, resumes those that were stopped and retries those that failed. Jobs run
    in processes of their own (Dask); if one is killed, no finished frame is lost.
    """
    paths = video_list(options.videos or ())
    runner = runner_for(options)
    rows = prior_rows(prior, () if model is None else (model,), options, hardware, tracking)
    check_folder(options.out, rows, paths)

    from napari_samexp.batch.plan import plan_jobs

    jobs = plan_jobs(rows, paths, options.out)
    facts = {
        "version": __version__, "priors": len(rows), "videos": len(paths), "settings": tracking.settings.to_json(),
        "workers": redacted_url(options.scheduler) if options.scheduler else runner.workers,
    }  # fmt: skip
    ended = run_all(jobs, runner, options, facts, quiet=json)
    report = _report(ended, options)
    typer.echo(to_json.dumps(report, indent=1) if json else _text(report))
    if ended.failed:
        raise SomeFailed(f"{len(ended.failed)} of {ended.jobs} jobs failed; the same command retries them.")


def _report(ended: BatchResult, options: BatchOptions) -> dict[str, Any]:
    return {
        "jobs": ended.jobs,
        "done": ended.count("done"),
        "skipped": ended.count("skipped"),
        "failed": ended.failed,
        "tracked": ended.tracked,
        "seconds": round(ended.seconds, 3),
        "frames_per_s": round(ended.tracked / max(ended.seconds, 1e-9), 3),
        "labels": str(options.out / "labels"),
        "manifest": str(options.out / MANIFEST),
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
