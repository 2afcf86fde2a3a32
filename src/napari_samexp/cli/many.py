"""What the commands on many priors and videos share: their options, rows of jobs, and how they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_samexp._urls import redacted_url
from napari_samexp.cli.folders import require_folder
from napari_samexp.cli.models import name_for
from napari_samexp.cli.progress import Stopped, interruptible
from napari_samexp.cli.shown_jobs import ShownJobs
from napari_samexp.errors import PriorError, SettingsError, VideoError
from napari_samexp.sam.weights.catalogue import OFFICIAL
from napari_samexp.tracking.settings import TrackSettings

if TYPE_CHECKING:
    from napari_samexp.batch.jobs import Job, JobResult
    from napari_samexp.batch.run import Runner

__all__ = [
    "MANIFEST", "Asked", "Frames", "Out", "Outcome", "Images", "Priors", "Retries", "Scheduler", "Videos",
    "Workers", "check_folder", "many_valued", "prior_rows", "require_not_stopped", "run_all", "runner_for",
    "video_list",
]  # fmt: skip

MANIFEST = "manifest.jsonl"
_MANY = {"batch": ("--videos",), "compare": ("--videos", "--images")}

Priors = Annotated[
    list[str],
    typer.Argument(metavar="PRIOR...", help="What `record` wrote; also patterns.", show_default=False),
]
Videos = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN...", help="Videos, or patterns such as clips/*.mp4.", show_default=False),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="The folder to write to.", show_default=False)]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--picture", metavar="IMAGE", help="A recorded image, to use priors with another model; repeat."
    ),
]
Frames = Annotated[str | None, typer.Option(metavar="A:B", help="Frames A to B - 1 of each video.")]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=256,
        help="Processes on this machine; by default one a GPU, or one for two cores.",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A Dask scheduler that is there already, such as tcp://host:8786."),
]
Retries = Annotated[
    int,
    typer.Option(metavar="N", min=0, max=10, help="How often a failed job is tried again, after all others."),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What all jobs of a command have in common.

    Parameters
    ----------
    frames : slice
    models : tuple of str
        Empty for the models that made the priors.
    images : tuple of str
    """

    settings: TrackSettings
    frames: slice
    models: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    graphs: bool = False


@dataclass(slots=True)
class Outcome:
    """How all jobs ended: the last result of each, and whether they were stopped."""

    results: dict[str, JobResult] = field(default_factory=dict)
    jobs: int = 0
    seconds: float = 0.0
    stopped: bool = False

    def count(self, *statuses: str) -> int:
        """Return how many jobs ended in one of these ways."""
        return sum(result.status in statuses for result in self.results.values())

    @property
    def failed(self) -> dict[str, str]:
        """Why jobs failed, by their names."""
        return {name: r.error for name, r in self.results.items() if r.status == "failed"}


def many_valued(arguments: Sequence[str]) -> list[str]:
    """Return arguments in which ``--videos a b c`` has become ``--videos a --videos b --videos c``.

    A shell that fills in ``--videos *.mp4`` gives all names after one option, which Typer would take for
    priors. What follows belongs to the option up to the next one; without a value it is as if not given.
    """
    options = _MANY.get(next((word for word in arguments if not word.startswith("-")), ""), ())
    out: list[str] = []
    current = ""
    for place, word in enumerate(arguments):
        if word == "--":
            return [*out, *arguments[place:]]
        if word.startswith("-"):
            current = word if word in options else ""
            if not current:
                out.append(word)
        elif current:
            out += [current, word]
        else:
            out.append(word)
    return out


def video_list(videos: Sequence[str], option: str = "--videos") -> list[Path]:
    """Return the paths that patterns name.

    Raises
    ------
    VideoError
        If there is none.
    """
    from napari_samexp.batch.plan import expand

    if not videos:
        raise VideoError(
            f"There is nothing to track in; give {option} with files or a pattern such as clips/*.mp4."
        )
    return expand(videos)


def prior_rows(priors: Sequence[str], asked: Asked) -> dict[str, Job]:
    """Return what the jobs of each prior, or of each prior and model, have in common, by the row's name.

    Raises
    ------
    PriorError, PriorMismatch
        If a prior cannot be read, or cannot be used with a model.
    """
    from napari_samexp.batch.jobs import Job
    from napari_samexp.batch.plan import expand, short_names
    from napari_samexp.tracking.prior import PriorMemory

    paths = expand(priors, PriorError, "prior files that `record` wrote")
    rows: dict[str, Job] = {}
    for path, short in zip(paths, short_names(paths)):
        recorded = PriorMemory.load(path)
        for model in asked.models or (None,):
            used = name_for(recorded, model, again=bool(asked.images))
            called = (
                used if used in OFFICIAL else Path(redacted_url(used)).stem
            )  # the dot in sam2.1 begins no ending
            name = short if len(asked.models) < 2 else f"{short}.{called}"
            if name in rows:
                raise SettingsError(f"Two of the --model have the name {called}; give each once.")
            rows[name] = Job(
                name, str(path), "", "", _absolute(used), asked.device, asked.dtype, asked.settings,
                asked.frames.start, asked.frames.stop, tuple(map(_absolute, asked.images)), graphs=asked.graphs,
            )  # fmt: skip
    return rows


def check_folder(
    out: Path, rows: Mapping[str, Job], videos: Sequence[Path], writes: Sequence[str] = ()
) -> None:
    """Raise unless the folder may be written, is not one of the videos, and holds what is written as no link."""
    inputs = {f"the video {path.name}": path for path in videos}
    inputs |= {f"the prior {name}": Path(job.prior) for name, job in rows.items()}
    require_folder("--out", out, inputs, (MANIFEST, *writes))


def runner_for(workers: int | None, scheduler: str | None, *, here: bool = False) -> Any:
    """Return where jobs run: on Dask, or in this process where `here` and nothing else is asked for."""
    from napari_samexp.batch.pool import DaskPool
    from napari_samexp.batch.run import Here

    if workers is not None and scheduler is not None:
        raise SettingsError("--workers and --scheduler exclude each other; a scheduler has its own workers.")
    return Here() if here and workers is None and scheduler is None else DaskPool(workers, scheduler)


def run_all(
    jobs: Sequence[Job], runner: Any, out: Path, *, retries: int, facts: dict[str, Any], quiet: bool
) -> Outcome:
    """Run jobs with a line that says how far all are, and return how they ended.

    After Ctrl-C the running jobs end after their frame, and none begins.
    """
    import time

    from napari_samexp.batch.jobs import Progress
    from napari_samexp.batch.manifest import Manifest
    from napari_samexp.batch.run import run_jobs

    outcome, began = Outcome(jobs=len(jobs)), time.monotonic()
    manifest = Manifest(out / MANIFEST)
    with interruptible() as interrupt, _entered(runner) as ready, ShownJobs(len(jobs), quiet=quiet) as shown:
        manifest.begin(facts)
        for event in run_jobs(jobs, ready, manifest, retries=retries, stop=lambda: interrupt.asked):
            shown.told(event)
            if not isinstance(event, Progress):
                outcome.results[event.job] = event
        outcome.stopped = interrupt.asked
    outcome.seconds = time.monotonic() - began
    return outcome


def require_not_stopped(outcome: Outcome, out: Path) -> None:
    """Raise `Stopped`, with what was kept, if Ctrl-C was pressed."""
    if outcome.stopped:
        done = outcome.count("done", "skipped")
        raise Stopped(
            f"Stopped: {done} of {outcome.jobs} jobs are done in {out}; the same command goes on where it ended."
        )


@contextmanager
def _entered(runner: Any) -> Iterator[Runner]:
    with runner as ready:
        yield ready


def _absolute(name: str) -> str:
    """Return a path that a worker with another working folder finds; a model's name stays."""
    path = Path(name)
    file = path if path.exists() else Path(name.rpartition("@")[0])
    return str(path.absolute()) if name and file.name and file.exists() else name
