"""How the dock feels: a real window, the real engine and the starter, on this machine.

    xvfb-run -a -s "-screen 0 1400x900x24" python -m benchmarks.feel.dock_feel [open] [heartbeat] [click] [scrub]

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.feel.feel_tools import (
    GOPS,
    HEAD,
    HEIGHT,
    WIDTH,
    Drawn,
    Heartbeat,
    Times,
    click,
    clip_of,
    disc,
    line,
    live,
    new_viewer,
    wait,
    window,
)
from benchmarks.feel.scrub_feel import scrubbing

PARTS = ("open", "heartbeat", "click", "scrub")


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
        command = [sys.executable, "-m", "benchmarks.feel.dock_feel", "--once"]
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


# ---- a session with the dock


@contextmanager
def session(args: Any) -> Iterator[tuple[Any, Any, Heartbeat]]:
    """Give a viewer with the dock and the starter loaded."""
    with tempfile.TemporaryDirectory() as home:
        viewer = new_viewer(Path(home))
        heart = Heartbeat()
        with heart.part("load: dock, worker and starter"):
            dock = _dock(viewer, args.threads)
            wait(lambda: dock.session.models.state.usable and dock.prompts.begun, "the model")
            live(1.0)
        yield viewer, dock, heart
        viewer.close()
        live(0.5)


def _dock(viewer: Any, threads: int | None) -> Any:
    if threads is None:
        return viewer.window.add_plugin_dock_widget("napari-samexp", "Prior tracking")[1]
    from napari_samexp._qt.connections import WindowThread
    from napari_samexp._qt.tracking.prior_tracking import PriorTracking
    from napari_samexp.engine import WorkerOptions
    from napari_samexp.session.session import Session

    dock = PriorTracking(viewer, Session(deliver=WindowThread(), options=WorkerOptions(threads=threads)))
    viewer.window.add_dock_widget(dock)
    return dock


def click_and_wait(viewer: Any, dock: Any, drawn: Drawn, x: float, y: float) -> tuple[float, float]:
    """Click, wait until the preview is drawn, and return the seconds of all, and of the model alone."""
    came: list[float] = []
    told = dock.session.prompting.preview_changed.connect(lambda _: came.append(time.perf_counter()))
    began = time.perf_counter()
    click(viewer, x, y)
    wait(lambda: bool(came) and drawn.at > came[-1], "a preview")
    dock.session.prompting.preview_changed.disconnect(told)
    return drawn.at - began, dock.session.prompting._answer.seconds


def heartbeat(args: Any) -> None:
    """Watch the window's thread while the main job is done."""
    path = clip_of(args, GOPS[0])
    with session(args) as (viewer, dock, heart):
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
        rates = _track(args, viewer, dock, heart)
    print(f"\nHeartbeat: gaps between beats of 1 ms\n\n{HEAD}")
    show_gaps(heart)
    print(f"tracked frames a second: {', '.join(f'{rate:.1f}' for rate in rates)}", flush=True)
    with window() as viewer:
        show_gaps(plain_heartbeat(args, viewer))


def show_gaps(heart: Heartbeat) -> None:
    for name, gaps in heart.parts.items():
        cpu = heart.cpu[name]
        over = f"{sum(gap > 0.05 for gap in gaps)} over 50; by own work {sum(c > 0.05 for c in cpu)}"
        print(line(name, gaps, f"{over}, most {1000 * max(cpu):.0f}"), flush=True)


def plain_heartbeat(args: Any, viewer: Any) -> Heartbeat:
    """Do with napari alone what the dock does with it."""
    heart = Heartbeat()
    for name in ("image", "labels"):
        data = disc() if name == "image" else np.zeros((HEIGHT, WIDTH), np.uint8)
        with heart.part(f"plain: add {name}"):
            getattr(viewer, f"add_{name}")(data)
            live(0.5)
    with heart.part("plain: remove labels"):
        viewer.layers.pop()
        live(0.5)
    viewer.layers[0].visible = False
    viewer.add_image(np.zeros((20, HEIGHT, WIDTH, 3), np.uint8), rgb=True)
    viewer.add_labels(np.zeros((20, HEIGHT, WIDTH), np.uint8))
    live(1.0)
    began, place = time.perf_counter(), 0
    with heart.part("plain: step through an image and labels"):
        while time.perf_counter() - began < args.seconds:
            place += 1
            viewer.dims.set_current_step(0, place % 20)
            live(0.2)
    return heart


def _track(args: Any, viewer: Any, dock: Any, heart: Heartbeat) -> Times:
    """Track while nobody moves, while somebody steps, and while somebody drags; return frames a second."""
    job, rates = lambda: dock.session.tracking.job, []
    with heart.part("track: the run begins"):
        dock.panel.track.click()
        wait(lambda: job().done > 1, "a tracked frame")
    for name, every, step in (
        ("track", 0.0, 0),
        ("track and step through it", 0.2, 1),
        ("track and drag the slider far", 0.2, 211),
    ):
        done, began, place = job().done, time.perf_counter(), 0
        with heart.part(name):
            while time.perf_counter() - began < args.seconds and job().active:
                place = (place + step) % args.frames
                viewer.dims.set_current_step(0, place)
                live(every or 1.0)
        rates.append((job().done - done) / (time.perf_counter() - began))
    with heart.part("track: cancel"):
        dock.panel.cancel.click()
        wait(lambda: not job().active, "the end")
    return rates


# ---- a click's way


def clicks(args: Any) -> None:
    """Click on a 1080p image that is encoded, with the dock and without."""
    plain, whole, own = [], [], []
    with session(args) as (viewer, dock, _):
        drawn = Drawn(viewer)
        viewer.add_image(disc(), rgb=True)
        wait(lambda: dock.prompts.layers is not None, "a layer for clicks")
        live(0.5)
        for place in range(args.steps + 3):
            if place % 10 == 0:
                dock.prompts.layers.clear()
                live(0.1)
            seconds, model = click_and_wait(viewer, dock, drawn, 700 + 5 * (place % 80), 500)
            if place >= 3:  # the first has the image encoded, the second adds the preview's layer
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
    print(f"\nClick to preview, 1080p, image encoded\n\n{HEAD}")
    print(line("click to preview drawn", whole))
    print(line("the model's own", own))
    print(line("overhead", np.subtract(whole, own)))
    print(line("plain: click to point drawn", plain))
    print(line("overhead beyond plain", np.subtract(np.subtract(whole, own), np.median(plain))), flush=True)


if __name__ == "__main__":
    main()
