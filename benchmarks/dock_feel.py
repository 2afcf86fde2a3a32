"""How the dock feels: a real window, the real engine and the starter, on this machine.

    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/dock_feel.py [open] [heartbeat] [click] [scrub]

Prints one table a part. "plain" rows are napari's own cost: the same step on a numpy stack, the same click
on a Points layer without the dock. Drawing is part of every figure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from feel_tools import (
    HEAD,
    Drawn,
    Heartbeat,
    canvas_of,
    click,
    disc,
    line,
    live,
    make_clip,
    new_viewer,
    number_of,
)

PATIENCE_S = 180.0
PARTS = ("open", "heartbeat", "click", "scrub")
GOPS = (250, 30)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--frames", type=int, default=600, help="of each clip")
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes that open the dock")
    parser.add_argument("--steps", type=int, default=60, help="of each kind while scrubbing, and clicks")
    parser.add_argument("--seconds", type=float, default=15, help="that a run is watched")
    parser.add_argument("--threads", type=int, help="of the worker; its own choice by default")
    parser.add_argument("--clips", type=Path, help="a folder to keep the clips in")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        print(json.dumps(open_once()))
        return
    with tempfile.TemporaryDirectory() as temporary:
        args.clips = args.clips or Path(temporary)
        print(f"load before: {os.getloadavg()[0]:.1f}", flush=True)
        for part in args.parts or PARTS:
            {"open": opening, "heartbeat": heartbeat, "click": clicks, "scrub": scrubbing}[part](args)
            print(f"load after: {os.getloadavg()[0]:.1f}", flush=True)


# ---- opening the dock


def opening(args: Any) -> None:
    """Open the dock in fresh processes: with compiled modules, and as after installing."""
    print(f"\nOpening the dock, GUI time\n\n{HEAD}")
    for name, cold in (("first in a process", False), ("first ever: nothing compiled", True)):
        runs = [_opened(cold) for _ in range(args.repeats)]
        print(line(f"{name}: call", [run["call"] for run in runs]))
        print(line(f"{name}: until drawn", [run["drawn"] for run in runs]))
        print(line(f"{name}: longest stall in the 5 s after", [run["stall"] for run in runs]))
        print(line(f"{name}: again in that process", [run["again"] for run in runs]), flush=True)


def _opened(cold: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        more = {"PYTHONPYCACHEPREFIX": cache} if cold else {}
        command = [sys.executable, __file__, "--once"]
        done = subprocess.run(command, env=os.environ | more, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def open_once() -> dict[str, float]:
    from qtpy.QtWidgets import QApplication

    with tempfile.TemporaryDirectory() as home:
        viewer = new_viewer(Path(home))
        heart = Heartbeat()
        times = {}
        for name in ("call", "again"):
            began = time.perf_counter()
            _, dock = viewer.window.add_plugin_dock_widget("napari-samexp", "Prior tracking")
            times[name] = time.perf_counter() - began
            QApplication.processEvents()
            times.setdefault("drawn", time.perf_counter() - began)
            with heart.part(name):
                live(5.0)
            viewer.window.remove_dock_widget(dock)
            live(0.5)
        times["stall"] = max(heart.parts["call"])
        viewer.close()
    return times


# ---- a sitting with the dock


@contextmanager
def sitting(args: Any) -> Iterator[tuple[Any, Any, Heartbeat]]:
    """Give a viewer with the dock and the starter loaded."""
    from napari_samexp.engine import process

    if args.threads is not None:
        process.WorkerOptions.__init__.__defaults__ = (
            args.threads,
            *process.WorkerOptions.__init__.__defaults__[1:],
        )
    with tempfile.TemporaryDirectory() as home:
        viewer = new_viewer(Path(home))
        heart = Heartbeat()
        with heart.part("load: dock, worker and starter"):
            _, dock = viewer.window.add_plugin_dock_widget("napari-samexp", "Prior tracking")
            wait(lambda: dock.session.models.state.usable and dock.prompts.begun, "the model")
            live(1.0)
        yield viewer, dock, heart
        viewer.close()
        live(0.5)


def wait(until: Callable[[], bool], what: str) -> None:
    if not live(PATIENCE_S, until):
        raise SystemExit(f"{what} did not come")


def click_and_wait(viewer: Any, dock: Any, drawn: Drawn, x: float, y: float) -> tuple[float, float]:
    """Click, wait until the preview is drawn, and return the seconds of all, and of the model alone."""
    came: list[float] = []
    told = dock.session.prompting.preview_changed.connect(lambda _: came.append(time.perf_counter()))
    began = time.perf_counter()
    click(viewer, x, y)
    wait(lambda: bool(came) and drawn.at > came[-1], "a preview")
    dock.session.prompting.preview_changed.disconnect(told)
    return drawn.at - began, dock.session.prompting._answer.seconds


def clip_of(args: Any, gop: int) -> Path:
    path: Path = args.clips / f"gop{gop}-{args.frames}.mp4"
    if not path.exists():
        make_clip(path, args.frames, gop)
    return path


def heartbeat(args: Any) -> None:
    """Watch the window's thread while the main job is done."""
    path = clip_of(args, GOPS[0])
    with sitting(args) as (viewer, dock, heart):
        with heart.part("idle"):
            live(3.0)
        drawn = Drawn(viewer)
        viewer.add_image(disc(), rgb=True)
        wait(lambda: dock.prompts.layers is not None, "a layer for clicks")
        with heart.part("preview: the first click"):
            click_and_wait(viewer, dock, drawn, 900, 500)
        with heart.part("preview: more clicks"):
            for place in range(20):
                click_and_wait(viewer, dock, drawn, 800 + 10 * place, 450)
        with heart.part("record"):
            dock.panel.record.click()
            wait(lambda: bool(dock.session.recordings.all), "a recording")
            live(0.5)
        with heart.part("open a 1080p clip"):
            dock.open_video_from(str(path))
            wait(lambda: dock.videos.current is not None, "the video")
            live(1.0)
        viewer.layers[0].visible = False
        _track(args, viewer, dock, heart)
        print(f"\nHeartbeat: gaps between beats of 1 ms\n\n{HEAD}")
        for name, gaps in heart.parts.items():
            cpu = heart.cpu[name]
            over = (
                f"{sum(gap > 0.05 for gap in gaps)} over 50; by own work {sum(c > 0.05 for c in cpu)}, most"
            )
            print(line(name, gaps, f"{over} {1000 * max(cpu):.0f}"))
    print(
        f"| tracked frames a second | {dock_rate[0]:.1f}, while scrubbing {dock_rate[1]:.1f} | | | | | |",
        flush=True,
    )


dock_rate: list[float] = []


def _track(args: Any, viewer: Any, dock: Any, heart: Heartbeat) -> None:
    job = lambda: dock.session.tracking.job  # noqa: E731
    with heart.part("track: the run begins"):
        dock.panel.track.click()
        wait(lambda: job().done > 1, "a tracked frame")
    for name, every in (
        ("track", 0),
        ("track and step through it", 0.2),
        ("track and drag the slider far", 0.2),
    ):
        done, began, place = job().done, time.perf_counter(), 0
        with heart.part(name):
            while time.perf_counter() - began < args.seconds and job().active:
                if every:
                    place = place + 1 if "step" in name else (place + 211) % args.frames
                    viewer.dims.set_current_step(0, place)
                live(every or 1.0)
        dock_rate.append((job().done - done) / (time.perf_counter() - began))
    with heart.part("track: cancel"):
        dock.panel.cancel.click()
        wait(lambda: not job().active, "the end")


# ---- a click's way


def clicks(args: Any) -> None:
    """Click on a 1080p picture that is encoded, with the dock and without."""
    plain, whole, own = [], [], []
    with sitting(args) as (viewer, dock, _):
        drawn = Drawn(viewer)
        viewer.add_image(disc(), rgb=True)
        wait(lambda: dock.prompts.layers is not None, "a layer for clicks")
        live(0.5)
        for place in range(args.steps + 3):
            if place % 10 == 0:
                dock.prompts.layers.clear()
                live(0.1)
            seconds, model = click_and_wait(viewer, dock, drawn, 700 + 5 * (place % 80), 500)
            if place >= 3:  # the first has the picture encoded, the second adds the preview's layer
                whole.append(seconds)
                own.append(model)
            live(0.02)
    with tempfile.TemporaryDirectory() as home:
        viewer = new_viewer(Path(home))
        drawn = Drawn(viewer)
        viewer.add_image(disc(), rgb=True)
        points = viewer.add_points(ndim=2, size=24)
        points.mode = "add"
        live(0.5)
        for place in range(args.steps + 3):
            before, began = drawn.count, time.perf_counter()
            click(viewer, 700 + 5 * (place % 80), 500)
            wait(lambda before=before: drawn.count > before, "a point")
            if place >= 3:
                plain.append(drawn.at - began)
            live(0.02)
        viewer.close()
    print(f"\nClick to preview, 1080p, picture encoded\n\n{HEAD}")
    print(line("click to preview drawn", whole))
    print(line("the model's own", own))
    print(line("overhead", np.subtract(whole, own)))
    print(line("plain: click to point drawn", plain))
    print(line("overhead beyond plain", np.subtract(np.subtract(whole, own), np.median(plain))), flush=True)


# ---- scrubbing


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


@contextmanager
def window() -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as home:
        viewer = new_viewer(Path(home))
        yield viewer
        viewer.close()
        live(0.3)


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
        canvas_of(self.viewer)
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
        for index, picture in (
            (place, self.layer.data[place]),
            (other, self.layer.data[other : other + 1, :, :][0]),
        ):
            self.read += 1
            self.wrong += number_of(picture) != index


if __name__ == "__main__":
    main()
