"""What `batch` and `compare` share: their options, a job for each prior and video, and how jobs run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_samexp._urls import redacted_url
from napari_samexp.cli.arguments import frame_slice
from napari_samexp.cli.folders import require_folder
from napari_samexp.cli.model import name_for
from napari_samexp.cli.options import DeviceOptions, Frames, RecordedImages, TrackingOptions
from napari_samexp.cli.progress import Stopped, interruptible
from napari_samexp.cli.progress_line import ProgressLine
from napari_samexp.errors import PriorError, SettingsError, VideoError
from napari_samexp.sam.weights.catalogue import OFFICIAL

if TYPE_CHECKING:
    from napari_samexp.batch.jobs import Job, JobResult

__all__ = [
    "MANIFEST", "BatchOptions", "BatchResult", "Priors", "check_folder", "prior_rows", "run_all", "runner_for",
    "video_list",
]  # fmt: skip

MANIFEST = "manifest.jsonl"

Priors = Annotated[
    list[str],
    typer.Argument(metavar="PRIOR...", help="What `record` wrote; also patterns.", show_default=False),
]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What to track in, where results go, and how jobs run."""

    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write to.", show_default=False)]
    videos: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN...", help="Videos, or patterns such as clips/*.mp4.", show_default=False
        ),
    ] = None
    image: RecordedImages = None
    frames: Frames = None
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=256,
            help="Processes on this machine; by default one per GPU, or one per two CPU cores.",
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A running Dask scheduler, such as tcp://host:8786."),
    ] = None
    retries: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=10, help="How often a failed job is retried, after all others."),
    ] = 1


@dataclass(slots=True)
class BatchResult:
    """How all jobs ended: the last result of each, and whether Ctrl-C stopped them."""

    results: dict[str, JobResult] = field(default_factory=dict)
    jobs: int = 0
    seconds: float = 0.0
    stopped: bool = False

    def count(self, *statuses: str) -> int:
        """Return how many jobs ended with one of these statuses."""
        return sum(result.status in statuses for result in self.results.values())

    @property
    def failed(self) -> dict[str, str]:
        """The reason of each failed job, by its name."""
        return {name: r.error for name, r in self.results.items() if r.status == "failed"}

    @property
    def tracked(self) -> int:
        """The number of frames that this run has tracked."""
        return sum(result.tracked for result in self.results.values())


def video_list(videos: Sequence[str], option: str = "--videos") -> list[Path]:
    """Return the paths that patterns match; `VideoError` if there are none."""
    from napari_samexp.batch.plan import expand

    if not videos:
        raise VideoError(
            f"There is nothing to track in; give {option} with files or a pattern such as clips/*.mp4."
        )
    return expand(videos)


def prior_rows(
    priors: Sequence[str],
    models: Sequence[str],
    options: BatchOptions,
    hardware: DeviceOptions,
    tracking: TrackingOptions,
) -> dict[str, Job]:
    """Return a job without a video for each prior, or for each prior and model, by the row's name.

    Raises
    ------
    PriorError, PriorMismatch
        If a prior cannot be read, or cannot be used with a model.
    """
    from napari_samexp.batch.jobs import Job
    from napari_samexp.batch.plan import expand, short_names
    from napari_samexp.tracking.prior import PriorMemory

    frames, images = frame_slice(options.frames), options.image or ()
    settings = tracking.settings
    paths = expand(priors, PriorError, "prior files that `record` wrote")
    rows: dict[str, Job] = {}
    for path, short in zip(paths, short_names(paths)):
        prior = PriorMemory.load(path)
        for given in models or (None,):
            model = name_for(prior, given, again=bool(images))
            name = short if len(models) < 2 else f"{short}.{_model_name(model)}"
            if name in rows:
                raise SettingsError(f"Two of the --model have the name {_model_name(model)}; give each once.")
            rows[name] = Job(
                name, str(path), "", "", _absolute(model), hardware.device, hardware.dtype, settings,
                frames.start, frames.stop, tuple(map(_absolute, images)), graphs=hardware.graphs,
            )  # fmt: skip
    return rows


def _model_name(model: str) -> str:
    return (
        model if model in OFFICIAL else Path(redacted_url(model)).stem
    )  # the dot in sam2.1 begins no suffix


def check_folder(
    out: Path, rows: Mapping[str, Job], videos: Sequence[Path], writes: Sequence[str] = ()
) -> None:
    """Raise unless the folder can be written, is not one of the inputs, and holds no links to be written through."""
    inputs = {f"the video {path.name}": path for path in videos}
    inputs |= {f"the prior {name}": Path(job.prior) for name, job in rows.items()}
    require_folder("--out", out, inputs, (MANIFEST, *writes))


def runner_for(options: BatchOptions, *, in_process: bool = False) -> Any:
    """Return what runs jobs: Dask, or this process if `in_process` and no Dask option is given."""
    from napari_samexp.batch.pool import DaskPool
    from napari_samexp.batch.run import InProcess

    workers, scheduler = options.workers, options.scheduler
    if workers is not None and scheduler is not None:
        raise SettingsError("--workers and --scheduler exclude each other; a scheduler has its own workers.")
    return (
        InProcess() if in_process and workers is None and scheduler is None else DaskPool(workers, scheduler)
    )


def run_all(
    jobs: Sequence[Job], runner: Any, options: BatchOptions, facts: dict[str, Any], *, quiet: bool
) -> BatchResult:
    """Run jobs, show the progress of all in one line, and return how they ended.

    After Ctrl-C, running jobs end after their current frame and no other job begins.

    Raises
    ------
    Stopped
        After Ctrl-C, with what is kept.
    """
    from napari_samexp.batch.jobs import JobProgress
    from napari_samexp.batch.manifest import Manifest
    from napari_samexp.batch.run import run_jobs

    batch, began = BatchResult(jobs=len(jobs)), time.monotonic()
    manifest = Manifest(options.out / MANIFEST)
    with interruptible() as interrupt, runner as entered, ProgressLine(len(jobs), quiet=quiet) as shown:
        manifest.begin(facts)
        stop = lambda: interrupt.requested  # noqa: E731
        for event in run_jobs(jobs, entered, manifest, retries=options.retries, stop=stop):
            shown.update(event)
            if not isinstance(event, JobProgress):
                batch.results[event.job] = event
        batch.stopped = interrupt.requested
    batch.seconds = time.monotonic() - began
    if batch.stopped:
        done = batch.count("done", "skipped")
        raise Stopped(
            f"Stopped: {done} of {batch.jobs} jobs are done in {options.out}; the same command goes on."
        )
    return batch


def _absolute(name: str) -> str:
    """Return a path that a worker with another working folder finds; a model's name stays."""
    path = Path(name)
    file = path if path.exists() else Path(name.rpartition("@")[0])
    return str(path.absolute()) if name and file.name and file.exists() else name
