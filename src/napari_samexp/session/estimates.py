"""How long runs take on this computer, from the first frames of the last one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from napari_samexp.engine.messages.model import ModelInfo
from napari_samexp.session.recordings import Recordings
from napari_samexp.tracking.forecast import Forecast, Work, proposed_side, time_words
from napari_samexp.tracking.settings import TrackSettings

__all__ = ["Estimate", "Estimates"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a run takes.

    Parameters
    ----------
    frames, side : int
        Of the run.
    seconds : float
        Of all its frames.
    proposed : int or None
        A smaller side, where the run would take long on a CPU.
    proposed_seconds : float or None
        Of all frames at that side.
    """

    frames: int
    side: int
    seconds: float
    proposed: int | None = None
    proposed_seconds: float | None = None

    @property
    def words(self) -> str:
        """Such as "about 4 min for 480 frames at 512"; shorter beside a proposal."""
        if self.proposal:
            return f"about {time_words(self.seconds)} at {self.side}"
        frames = "1 frame" if self.frames == 1 else f"{self.frames} frames"
        return f"about {time_words(self.seconds)} for {frames} at {self.side}"

    @property
    def proposal(self) -> str:
        """Such as "Use 512: 6 min"; empty where there is none."""
        if self.proposed is None or self.proposed_seconds is None:
            return ""
        return f"Use {self.proposed}: {time_words(self.proposed_seconds)}"


class Estimates:
    """Estimates of the current run, and of one that would start now.

    Attributes
    ----------
    model : ModelInfo or None
        The model that tracks now.
    """

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings
        self._run: Forecast | None = None
        self._run_frames = 0
        self._last: tuple[ModelInfo, Forecast] | None = None
        self.model: ModelInfo | None = None

    def start_run(self, settings: TrackSettings, image_hw: tuple[int, int], done: int, frames: int) -> None:
        """Note that a run of `frames` frames starts, of which `done` were finished before."""
        work = self._work(settings, image_hw)
        self._run = None if work is None else Forecast(work, done)
        self._run_frames = frames

    def observe(self, seconds: float) -> None:
        """Note what the run's next frame took."""
        if self._run is not None and self.model is not None:
            self._run.observe(seconds)
            if self._run.ready:
                self._last = (self.model, self._run)

    def left(self, frames: int) -> float | None:
        """Return the seconds that `frames` more of the run will take; None while unknown."""
        return None if self._run is None else self._run.left(frames)

    @property
    def is_known(self) -> bool:
        """Whether the current run can be estimated."""
        return self._run is not None

    def of_run(self) -> Estimate | None:
        """Return the estimate of the whole run; None while unknown."""
        if self._run is None or not self._run.ready:
            return None
        return self._estimate(self._run, self._run.work, self._run_frames)

    def of_next(self, settings: TrackSettings, image_hw: tuple[int, int], frames: int) -> Estimate | None:
        """Return the estimate of a run that starts now; None until frames were timed with this model."""
        work = self._work(settings, image_hw)
        if work is None or self._last is None or self._last[0] != self.model:
            return None
        return self._estimate(self._last[1], work, frames)

    def _work(self, settings: TrackSettings, image_hw: tuple[int, int]) -> Work | None:
        labels = Counter(label for _, label in self._recordings.in_use)
        if self.model is None or self.model.variant is None or not labels:
            return None
        return Work(self.model.variant, settings, image_hw, dict(labels))

    def _estimate(self, forecast: Forecast, work: Work, frames: int) -> Estimate | None:
        seconds = forecast.seconds(work, frames)
        if seconds is None or self.model is None:
            return None
        side = proposed_side(forecast, work, frames, self.model.device)
        smaller = None if side is None else forecast.seconds(work.at(side), frames)
        return Estimate(frames, work.side, seconds, side, smaller)
