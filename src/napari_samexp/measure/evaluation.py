"""Labels against a ground truth: J, F and presence of each label in each frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from napari_samexp.errors import StoreError
from napari_samexp.io.csv_file import write_csv
from napari_samexp.measure.davis import TOLERANCE, Statistics, contour_accuracy, jaccard, statistics
from napari_samexp.measure.masks import Masks
from napari_samexp.types import ObjectScore

__all__ = ["Evaluation", "FrameScore", "LabelScore", "evaluate_masks", "score_frames"]

MAX_GUESSED = 1000  # labels that are looked for in a ground truth that does not name them


@dataclass(frozen=True, slots=True)
class FrameScore:
    """One label in one frame.

    Parameters
    ----------
    frame, label : int
        `label` as in the labels that are evaluated.
    j, f : float
        0 to 1.
    there, found : bool
        Whether the ground truth has the object, and whether the model's presence score predicts it; without a
        score, or in a frame that a person painted, whether the labels have it.
    """

    frame: int
    label: int
    j: float
    f: float
    there: bool
    found: bool

    @property
    def jf(self) -> float:
        """The mean of J and F."""
        return (self.j + self.f) / 2


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label over all frames.

    Parameters
    ----------
    j, f : Statistics
    j_seen : float
        Mean J of the frames in which the ground truth has the object; NaN if there are none.
    presence : float
        Fraction of frames in which `found` is correct.
    frames : int
    """

    label: int
    name: str
    j: Statistics
    f: Statistics
    j_seen: float
    presence: float
    frames: int

    @property
    def jf(self) -> float:
        """J&F, the mean of both means."""
        return (self.j.mean + self.f.mean) / 2


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All scores of one set of labels.

    Parameters
    ----------
    frames : tuple of FrameScore
        By frame, then by label.
    names : dict of int to str
    left_out : int
        Frames without labels, which a run has not finished; they do not count.
    """

    frames: tuple[FrameScore, ...]
    names: dict[int, str]
    left_out: int = 0

    def of_label(self, label: int) -> list[FrameScore]:
        """Return the scores of a label in temporal order."""
        return [score for score in self.frames if score.label == label]

    @property
    def labels(self) -> tuple[LabelScore, ...]:
        """A summary of each label."""
        return tuple(_summary(label, name, self.of_label(label)) for label, name in self.names.items())

    @property
    def jf(self) -> float:
        """J&F, the mean over labels."""
        return float(np.mean([label.jf for label in self.labels]))

    def write_frames_csv(self, path: Path) -> None:
        """Write a CSV row for each frame and label: frame, label, name, j, f, jf, there, found."""
        rows = [
            (s.frame, s.label, self.names[s.label], s.j, s.f, s.jf, _lower(s.there), _lower(s.found))
            for s in self.frames
        ]
        write_csv(path, ("frame", "label", "name", "j", "f", "jf", "there", "found"), rows)

    def write_labels_csv(self, path: Path) -> None:
        """Write a CSV row for each label: means, recalls, decays, J where seen, presence and frames."""
        parts = [f"{measure}_{field.name}" for measure in ("j", "f") for field in fields(Statistics)]
        head = ("label", "name", "jf", *parts, "j_seen", "presence", "frames")
        rows = [
            (
                s.label, s.name, s.jf, s.j.mean, s.j.recall, s.j.decay, s.f.mean, s.f.recall, s.f.decay,
                s.j_seen, s.presence, s.frames,
            )
            for s in self.labels
        ]  # fmt: skip
        write_csv(path, head, rows)


def evaluate_masks(
    found: Masks,
    ground_truth: Masks,
    *,
    pairs: Mapping[int, int] | None = None,
    frames: Sequence[int] | None = None,
    tolerance: float = TOLERANCE,
    void: int | None = None,
) -> Evaluation:
    """Return the scores of labels against a ground truth.

    Parameters
    ----------
    found, ground_truth : Masks
        Of the same shape.
    pairs : mapping of int to int, optional
        The label of the ground truth for each label. By default equal numbers, or if each side has only
        one label, those two.
    frames : sequence of int, optional
        By default all for which `found` has labels. DAVIS leaves out the last frame and the first, which the
        method was given; a prior from another image is given none.
    tolerance : float
        See `contour_accuracy`.
    void : int, optional
        Label of the ground truth whose pixels do not count.

    Raises
    ------
    StoreError
        If shapes differ, or the two have no label in common.
    """
    requested = list(range(found.shape[0])) if frames is None else list(frames)
    known = set(found.frames)
    chosen = [frame for frame in requested if frame in known]
    paired = _pairs(found, ground_truth, pairs, chosen, void)
    scores = tuple(score_frames(found, ground_truth, paired, chosen, tolerance, void))
    names = {label: found.names.get(label, f"object {label}") for label in paired}
    return Evaluation(scores, names, len(requested) - len(chosen))


def score_frames(
    found: Masks,
    ground_truth: Masks,
    pairs: Mapping[int, int],
    frames: Sequence[int],
    tolerance: float = TOLERANCE,
    void: int | None = None,
) -> Iterator[FrameScore]:
    """Yield the scores of frames, one frame in memory at a time; see `evaluate_masks`."""
    if found.shape != ground_truth.shape:
        raise StoreError(
            f"The labels have shape {found.shape} and the ground truth {ground_truth.shape}; give the ground truth of this video."
        )
    edited = found.edited()
    for frame in frames:
        ours, theirs = found.frame(frame), ground_truth.frame(frame)
        scores = {} if frame in edited else (found.scores or {}).get(frame, {})
        counts = np.ones(theirs.shape, np.bool_) if void is None else theirs != void
        for label, other in pairs.items():
            mask, right = (ours == label) & counts, (theirs == other) & counts
            yield FrameScore(
                frame,
                label,
                jaccard(mask, right),
                contour_accuracy(mask, right, tolerance),
                bool(right.any()),
                _is_found(scores.get(label), mask),
            )


def _pairs(
    found: Masks,
    ground_truth: Masks,
    pairs: Mapping[int, int] | None,
    frames: Sequence[int],
    void: int | None,
) -> dict[int, int]:
    if pairs:
        return dict(pairs)
    if found.shape != ground_truth.shape:
        raise StoreError(
            f"The labels have shape {found.shape} and the ground truth {ground_truth.shape}; give the ground truth of this video."
        )
    if not frames:
        raise StoreError("The labels have no finished frame to evaluate; track first, or choose others.")
    ours = set(found.names) or _seen(found, frames)
    theirs = (set(ground_truth.names) or _seen(ground_truth, frames)) - {void}
    if len(ours) == len(theirs) == 1:
        return {min(ours): min(theirs)}
    common = sorted(ours & theirs)
    if not common:
        raise StoreError(
            f"The labels are {_listed(ours)} and those of the ground truth {_listed(theirs)}; say which label belongs to which."
        )
    # without names, an object of the ground truth that was never found counts as missed
    return {label: label for label in (common if found.names else sorted(theirs))}


def _seen(masks: Masks, frames: Sequence[int]) -> set[int]:
    seen: set[int] = set()
    for frame in frames:
        seen |= set(np.unique(masks.frame(frame)).tolist())
        if len(seen) > MAX_GUESSED:
            raise StoreError(
                f"The labels have more than {MAX_GUESSED} values, so they are not labels of objects."
            )
    return {int(label) for label in seen} - {0}


def _listed(labels: set[int]) -> str:
    return ", ".join(map(str, sorted(labels))) or "none"


def _is_found(score: ObjectScore | None, mask: Any) -> bool:
    return bool(mask.any()) if score is None else not score.lost


def _summary(label: int, name: str, scores: Sequence[FrameScore]) -> LabelScore:
    seen = [score.j for score in scores if score.there]
    right = [score.there == score.found for score in scores]
    return LabelScore(
        label,
        name,
        statistics([score.j for score in scores]),
        statistics([score.f for score in scores]),
        float(np.mean(seen)) if seen else float("nan"),
        float(np.mean(right)) if right else float("nan"),
        len(scores),
    )


def _lower(value: bool) -> str:
    return str(value).lower()
