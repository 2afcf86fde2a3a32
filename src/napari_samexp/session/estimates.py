"""How long runs take on this computer, from the first frames of the last one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from napari_samexp.engine.messages.base import Reply
from napari_samexp.engine.messages.model import ModelInfo
from napari_samexp.engine.messages.tracking import FrameDone, TrackStarted
from napari_samexp.session.frames import RECENT
from napari_samexp.session.jobs import JobState
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

    def on_reply(self, reply: Reply, settings: TrackSettings) -> None:
        """Follow the current run, which has these settings."""
        if isinstance(reply, TrackStarted):
            work = self._work(settings, reply.shape[1:])
            self._run = None if work is None else Forecast(work, reply.done)
            self._run_frames = reply.total
        elif isinstance(reply, FrameDone) and self._run is not None and self.model is not None:
            self._run.observe(reply.seconds)
            if self._run.ready:
                self._last = (self.model, self._run)

    def refined(self, job: JobState, reply: Reply) -> JobState:
        """Return a job with the estimated time left after its first frames, which attend to fewer memories."""
        early = isinstance(reply, FrameDone) and len(job.seconds) < RECENT
        if not early or self._run is None:
            return job
        return replace(job, left_s=self._run.left(job.total - job.done))

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
