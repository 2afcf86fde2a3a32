"""Scrubbing a 1080p video in a real window: a part of `dock_feel.py`, which says how to run it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.feel.feel_tools import GOPS, HEAD, Drawn, clip_of, line, live, number_of, wait, window


def scrubbing(args: Any) -> None:
    """Step and jump through clips, and through a numpy stack for comparison."""
    from napari_samexp.io.video import open_video

    print(f"\nScrubbing 1080p, GUI time of one step with its drawing\n\n{HEAD}")
    stack = np.stack([open_video(clip_of(args, GOPS[1])).frame(index) for index in range(60)])
    with window() as viewer:
        viewer.add_image(stack, rgb=True, contrast_limits=(0, 255))
        plain = Scrubber(viewer, len(stack))
        print(line("plain numpy stack: +1", plain.steps(range(1, len(stack)))))
        print(line("plain numpy stack: random", plain.steps(_random(len(stack), args.steps, 1))), flush=True)
    del stack
    for gop in GOPS:
        with window() as viewer:
            from napari_samexp._qt.shown_video import add_video

            video = open_video(clip_of(args, gop))
            add_video(viewer, video, path=clip_of(args, gop))
            scrub_one(Scrubber(viewer, len(video)), f"GOP {gop}", args.steps)


def scrub_one(scrub: Scrubber, name: str, steps: int) -> None:
    count = scrub.count
    first = count // 4
    scrub.settle(first)
    for pause in (0.04, 0.0):
        how = "25 a second" if pause else "as fast as it goes"
        scrub.show(f"{name}: +1, {how}", scrub.steps(range(first + 1, first + steps), pause))
        scrub.show(f"{name}: -1, {how}", scrub.steps(range(first + steps - 2, first - 1, -1), pause))
    back = [place for start in range(first, first + steps, 3) for place in (*range(start, start + 8), start)]
    scrub.settle(first)
    times = scrub.steps(back, 0.02)
    scrub.show(f"{name}: return to a frame seen 8 steps ago", times[8::9])
    far = _random(count, steps // 2, count // 4)
    scrub.show(f"{name}: far jump, window's time", scrub.steps(far, 0.3))
    waits = [scrub.settle(place) for place in far[: steps // 3]]
    print(line(f"{name}: far jump, until the exact frame", waits))
    pairs = [place for start in far[: steps // 6] for place in (start, (start + count // 2) % count)]
    for place in pairs:
        scrub.settle(place)
    scrub.show(f"{name}: return to a place seen 1 jump ago", scrub.steps(pairs[-2:] * (steps // 2), 0.04))
    print(
        f"| {name}: frames read by numpy in between | {scrub.read} read, {scrub.wrong} wrong | | | | | |",
        flush=True,
    )


def _random(count: int, steps: int, apart: int) -> list[int]:
    rng, places = np.random.default_rng(0), [0]
    while len(places) < steps:
        place = int(rng.integers(count))
        if abs(place - places[-1]) >= apart:
            places.append(place)
    return places


class Scrubber:
    """Moves the slider, and reads frames in between."""

    def __init__(self, viewer: Any, count: int) -> None:
        self.viewer, self.count = viewer, count
        self.layer = viewer.layers[0]
        self.read = self.wrong = self.late = 0
        self.own: list[float] = []  # what of the last steps the plugin took
        self._drawn = Drawn(viewer)
        if hasattr(self.layer.data, "_shown"):
            self._clock(self.layer.data)

    def _clock(self, shown: Any) -> None:
        give = shown._shown

        def clocked(index: int) -> Any:
            began = time.perf_counter()
            frame = give(index)
            self.own.append(time.perf_counter() - began)
            return frame

        shown._shown = clocked

    def steps(self, places: Any, pause: float = 0.02) -> list[float]:
        """Return the window's time for each step; between two, it lives for a while."""
        self.late, self.own = 0, []
        times = []
        for place in places:
            times.append(self._step(int(place)))
            self.late += self._waiting is not None
            live(pause) if pause else None
        return times

    def settle(self, place: int) -> float:
        """Go somewhere and wait for the exact frame to be drawn; then read it and others."""
        began = time.perf_counter()
        self._step(place)
        wait(lambda: self._waiting is None, "a frame")
        seconds = time.perf_counter() - began
        live(0.1)
        self._check(place)
        return seconds

    def show(self, name: str, times: list[float]) -> None:
        print(line(name, times, f"{self.late} stand-ins"))
        print(line("  of it the plugin's own", self.own), flush=True)

    @property
    def _waiting(self) -> int | None:
        return getattr(self.layer.data, "waiting", None)

    def _step(self, place: int) -> float:
        from qtpy.QtWidgets import QApplication

        began, before = time.perf_counter(), self._drawn.count
        self.viewer.dims.set_current_step(0, place)
        while self._drawn.count == before and time.perf_counter() - began < 0.5:
            QApplication.processEvents()
        return time.perf_counter() - began

    def _check(self, place: int) -> None:
        other = (place + 7) % self.count
        for index, image in (
            (place, self.layer.data[place]),
            (other, self.layer.data[other : other + 1, :, :][0]),
        ):
            self.read += 1
            self.wrong += number_of(image) != index
