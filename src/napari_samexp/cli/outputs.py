"""The files of a tracking run: checked before anything is written, written once the labels are complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_samexp.cli.arguments import require_one_of, require_output
from napari_samexp.cli.progress import Update, progress
from napari_samexp.errors import SettingsError

if TYPE_CHECKING:
    from napari_samexp.io.labels import LabelStore
    from napari_samexp.types import VideoSource

__all__ = ["Outputs"]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a run writes; the options of `track` about it."""

    out: Annotated[
        Path,
        typer.Option(metavar="LABELS", help="The labels, a new zarr folder (T, Y, X).", show_default=False),
    ]
    resume: Annotated[bool, typer.Option("--resume", help="Resume the same run where it was stopped.")] = (
        False
    )
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the label store.")] = False
    scores: Annotated[
        Path | None,
        typer.Option(metavar="S.csv", help="Also write presence and IoU of each frame, a CSV file."),
    ] = None
    overlay: Annotated[
        Path | None, typer.Option(metavar="O.mp4", help="Also write the video with its labels, an MP4 file.")
    ] = None

    def check(self, video: Path, inputs: Mapping[str, Path]) -> None:
        """Raise unless all can be written without harming the video, other inputs, or each other.

        Raises
        ------
        SettingsError, StoreError
            Before anything is written.
        """
        from napari_samexp.io.atomic import absolute_path
        from napari_samexp.io.image import IMAGE_SUFFIXES
        from napari_samexp.io.label_header import require_replaceable

        require_one_of("--resume", "--overwrite", self.resume and self.overwrite)
        if not self.resume:  # the store checks this again, but only once the model is loaded
            require_replaceable(absolute_path(self.out), self.overwrite)
        others = {"the video": video, **inputs, "the labels": self.out}
        for option, path in (("--scores", self.scores), ("--overlay", self.overlay)):
            if path is not None:
                require_output(option, path, others, self.out)
                if path.suffix.lower() in IMAGE_SUFFIXES:  # or it becomes a frame of a video that is a folder
                    require_output(option, path, others, video)
                others[f"what {option} writes"] = path
        if self.overlay is not None and self.overlay.suffix.lower() != ".mp4":
            raise SettingsError(f"--overlay is {str(self.overlay)!r}; give a path that ends in .mp4.")

    def write(self, store: LabelStore, video: VideoSource, frames: Sequence[int], *, quiet: bool) -> None:
        """Write the scores of all finished frames, and the overlay of `frames` in the video's order."""
        if self.scores is not None:
            store.write_scores_csv(self.scores)
        if self.overlay is not None:
            from napari_samexp.render.overlay import write_overlay

            with progress(self.overlay.name, "frames", quiet=quiet) as update:
                write_overlay(self.overlay, video, store, frames=_counted(sorted(frames), update))

    @property
    def paths(self) -> dict[str, str]:
        """The paths that are given, by what they hold."""
        named = {"labels": self.out, "scores": self.scores, "overlay": self.overlay}
        return {name: str(path) for name, path in named.items() if path is not None}


def _counted(frames: Sequence[int], update: Update) -> Iterator[int]:
    for done, frame in enumerate(frames):
        update(done, len(frames))
        yield frame
