"""The files of a tracking run: checked before anything is written, written once the labels are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_samexp.cli.arguments import require_output
from napari_samexp.cli.progress import Update, progress
from napari_samexp.errors import SettingsError

if TYPE_CHECKING:
    from napari_samexp.io.labels import LabelStore
    from napari_samexp.types import VideoSource

__all__ = ["Outputs"]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a run writes.

    Parameters
    ----------
    labels : Path
        The label store.
    scores, overlay : Path, optional
        A CSV file and an MP4 file; replaced if they exist.
    """

    labels: Path
    scores: Path | None = None
    overlay: Path | None = None

    def check(self, video: Path, inputs: Mapping[str, Path], *, resume: bool, overwrite: bool) -> None:
        """Raise unless all can be written without harming the video, other inputs, or each other.

        Raises
        ------
        SettingsError, StoreError
            Nothing has been written then.
        """
        from napari_samexp.io.atomic import absolute_path
        from napari_samexp.io.image import IMAGE_SUFFIXES
        from napari_samexp.io.label_header import require_replaceable

        if not resume:  # the store checks this again, but only once a model is there
            require_replaceable(absolute_path(self.labels), overwrite)
        kept = {"the video": video, **inputs, "the labels": self.labels}
        for option, path in (("--scores", self.scores), ("--overlay", self.overlay)):
            if path is not None:
                require_output(option, path, kept, self.labels)
                if path.suffix.lower() in IMAGE_SUFFIXES:  # it would be a frame of a video that is a folder
                    require_output(option, path, kept, video)
                kept[f"what {option} writes"] = path
        if self.overlay is not None and self.overlay.suffix.lower() != ".mp4":
            raise SettingsError(f"--overlay is {str(self.overlay)!r}; give a path that ends in .mp4.")

    def write(self, store: LabelStore, video: VideoSource, frames: Sequence[int], *, quiet: bool) -> None:
        """Write the scores of all done frames, and the overlay of `frames` in the order of time."""
        if self.scores is not None:
            store.write_scores_csv(self.scores)
        if self.overlay is not None:
            from napari_samexp.render.overlay import write_overlay

            with progress(self.overlay.name, "frames", quiet=quiet) as update:
                write_overlay(self.overlay, video, store, frames=_counted(sorted(frames), update))

    @property
    def paths(self) -> dict[str, str]:
        """The paths by what they hold."""
        named = {"labels": self.labels, "scores": self.scores, "overlay": self.overlay}
        return {name: str(path) for name, path in named.items() if path is not None}


def _counted(frames: Sequence[int], update: Update) -> Iterator[int]:
    for done, frame in enumerate(frames):
        update(done, len(frames))
        yield frame
