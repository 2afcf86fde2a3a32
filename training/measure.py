"""Clips that are segmented and tracked through the same calls that users make, and what they give."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from napari_samexp.sam import load_model
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, record
from napari_samexp.types import Prompt
from training import scenes

VISIBLE = 0.0003  # share of the frame's pixels
RECOVERY_FRAMES, RECOVERY_STAY, RECOVERED = 5, 3, 0.5


@dataclass
class Measured:
    """What one or several clips gave; lists have a number for each clip, frame or event that counts."""

    points: dict[int, list[float]] = field(default_factory=lambda: {1: [], 2: [], 3: []})
    tracked: list[float] = field(default_factory=list)
    seen: list[bool] = field(default_factory=list)  # is a visible object called present
    absent: list[bool] = field(default_factory=list)  # is one that is out of sight called lost
    right: list[bool] = field(default_factory=list)
    recovered: list[bool] = field(default_factory=list)
    iou_error: list[float] = field(default_factory=list)
    by_scene: dict[str, list[float]] = field(default_factory=dict)

    def add(self, other: Measured) -> None:
        """Append the numbers of another."""
        for count, values in other.points.items():
            self.points[count] += values
        for name in ("tracked", "seen", "absent", "right", "recovered", "iou_error"):
            getattr(self, name).extend(getattr(other, name))
        for scene, values in other.by_scene.items():
            self.by_scene.setdefault(scene, []).extend(values)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def inner_point(mask: np.ndarray, rng: np.random.Generator, middle: float = 0.5) -> np.ndarray:
    """Return a random (x, y) at least `middle` as deep inside a mask as its deepest point."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    places = np.argwhere(mask & (depth >= middle * depth.max()))
    return places[rng.integers(len(places))][::-1].astype(np.float32)


def next_point(found: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Return a point (x, y) in the middle of the largest error of a mask, and its label."""
    missed, spilled = target & ~found, found & ~target
    if not missed.any() and not spilled.any():
        return inner_point(target, rng), 1
    largest, label = [], []
    for errors, kind in ((missed, 1), (spilled, 0)):
        parts, count = ndimage.label(errors)
        if count:
            areas = np.bincount(parts.ravel())
            areas[0] = 0
            largest.append(parts == areas.argmax())
            label.append(kind)
    k = int(np.argmax([part.sum() for part in largest]))
    return inner_point(largest[k], rng, 0.9), label[k]


def clicked(
    model: Any, features: Any, target: np.ndarray, rng: np.random.Generator, count: int = 3
) -> Iterator[tuple[Prompt, Any]]:
    """Yield the prompts of 1 to `count` clicks on a thing, and what each gives.

    The first is somewhere in the middle of it, each further one in the middle of the largest error.
    """
    xy, labels = [inner_point(target, rng)], [1]
    while True:
        prompt = Prompt(np.array(xy), np.array(labels))
        prediction = model.segment(features, prompt)
        yield prompt, prediction
        if len(xy) == count:
            return
        point, label = next_point(prediction.mask(), target, rng)
        xy.append(point)
        labels.append(label)


def returns(shown: np.ndarray) -> list[slice]:
    """Return the frames of each time that something is back after it was out of sight, the first showing left out.

    Parameters
    ----------
    shown
        (T,) share of each frame that shows it.
    """
    there = shown > VISIBLE
    edges = np.flatnonzero(np.diff(np.concatenate(([False], there, [False])).astype(int)))
    runs = [slice(a, b) for a, b in zip(edges[::2], edges[1::2])]
    gone = [(shown[before.stop : after.start] == 0).any() for before, after in pairwise(runs)]
    return [run for run, hidden in zip(runs[1:], gone) if hidden and run.stop - run.start >= RECOVERY_STAY]


def most_overlapped(found: np.ndarray, things: np.ndarray) -> int:
    """Return the number of the thing whose IoU with a mask is highest; 0 where the mask touches none."""
    numbers = [int(k) for k in np.unique(things[found]) if k]
    return max(numbers, key=lambda k: jaccard(found, things == k), default=0)


def measure_clip(
    model: Any, example: scenes.Example, rng: np.random.Generator, settings: TrackSettings
) -> Measured:
    """Segment the prior image, record the last prediction and track the clip with it."""
    measured = Measured()
    features = model.encode(example.prior, side=settings.side)
    for prompt, prediction in clicked(model, features, example.prior_mask, rng):
        measured.points[len(prompt.points_xy)].append(jaccard(prediction.mask(), example.prior_mask))
    prior = PriorMemory().with_recording(*record(model, example.prior, features, prompt, prediction))
    tracker = Tracker(model, prior, settings)
    shown = example.masks.mean((1, 2))
    scores = np.zeros(len(shown))
    for t, (frame, mask, things) in enumerate(zip(example.frames, example.masks, example.frame_instances)):
        result = tracker.step(frame, t)
        found, score = result.labels == 1, result.scores[1]
        scores[t] = jaccard(found, mask)
        if shown[t] > VISIBLE:
            measured.tracked.append(scores[t])
            measured.seen.append(not score.lost)
            measured.iou_error.append(abs(score.iou - scores[t]))
            if found.any() and things.max() > 1:
                measured.right.append(most_overlapped(found, things) == scenes.OBJECT_ID)
        elif shown[t] == 0:
            measured.absent.append(score.lost)
    for run in returns(shown):
        first = scores[run][:RECOVERY_FRAMES]
        measured.recovered.append(bool((first >= RECOVERED).any()))
    measured.by_scene = {example.facts["scene"]: list(measured.tracked)}
    return measured


def measure_seeds(
    weights: str, config: scenes.SceneConfig, seeds: list[int], settings: TrackSettings, threads: int
) -> Measured:
    """Measure the clips of some seeds in this process."""
    torch.set_num_threads(threads)
    model, total = load_model(weights, device="cpu"), Measured()
    for seed in seeds:
        total.add(
            measure_clip(model, scenes.make_example(config, seed), np.random.default_rng(seed), settings)
        )
    return total


def measure(
    weights: str, config: scenes.SceneConfig, seeds: range, settings: TrackSettings, workers: int
) -> Measured:
    """Measure the clips of some seeds; the result does not depend on how many processes share them."""
    if workers == 1:
        return measure_seeds(weights, config, list(seeds), settings, torch.get_num_threads())
    total, size = Measured(), 4
    jobs = [(weights, config, list(seeds[k : k + size]), settings, 1) for k in range(0, len(seeds), size)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for part in pool.starmap(measure_seeds, jobs, chunksize=1):
            total.add(part)
    return total


def speed(weights: str, side: int, frames: int = 24) -> tuple[float, float]:
    """Return tracked frames a second, the recent memories full, and milliseconds of encoding, both medians."""
    model = load_model(weights, device="cpu")
    example = scenes.make_example(scenes.SceneConfig(side=side, frames=8, absent=0.0), 3)
    features = model.encode(example.prior, side=side)
    prompt = Prompt(np.array([inner_point(example.prior_mask, np.random.default_rng(0))]), np.array([1]))
    prediction = model.segment(features, prompt)
    prior = PriorMemory().with_recording(*record(model, example.prior, features, prompt, prediction))
    tracker = Tracker(model, prior, TrackSettings(side=side, keep_lost=True))
    whole, encode = [], []
    for t in range(frames):
        started = time.perf_counter()
        tracker.step(example.frames[t % 8], t)
        whole.append(time.perf_counter() - started)
        started = time.perf_counter()
        model.encode(example.frames[t % 8], side=side)
        encode.append(time.perf_counter() - started)
    return 1 / float(np.median(whole[8:])), 1e3 * float(np.median(encode))
