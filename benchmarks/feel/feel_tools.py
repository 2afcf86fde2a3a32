"""What the measurements in a real window share: clips with numbered frames, a heartbeat, a person's mouse."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

HEIGHT, WIDTH = 1080, 1920
PATIENCE_S = 180.0
GOPS = (250, 30)
BITS, BLOCK = 12, 32  # the frame's number, as black and white squares in its upper left corner

Times = list[float]


def make_clip(path: Path, frames: int, gop: int) -> None:
    """Write a 1080p H.264 clip of moving texture and noise, three B-frames between others."""
    rng = np.random.default_rng(gop)
    coarse = rng.integers(0, 200, (HEIGHT // 8 + 20, WIDTH // 8 + 40, 3), np.uint8)
    texture = coarse.repeat(8, 0).repeat(8, 1)
    noise = [rng.integers(0, 48, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(4)]
    options = {"preset": "ultrafast", "bf": "3", "g": str(gop), "keyint_min": str(gop), "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            y, x = index % 150, 2 * index % 300
            image = texture[y : y + HEIGHT, x : x + WIDTH] + noise[index % 4]
            _number(image, index)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def clip_of(args: Any, gop: int) -> Path:
    path: Path = args.clips / f"gop{gop}-{args.frames}.mp4"
    if not path.exists():
        make_clip(path, args.frames, gop)
    return path


def _number(image: np.ndarray, index: int) -> None:
    for bit in range(BITS):
        image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (index >> bit & 1)


def number_of(image: np.ndarray) -> int:
    """Return the frame number that is drawn into an image."""
    row = np.asarray(image)[BLOCK // 2, BLOCK // 2 : BITS * BLOCK : BLOCK, 1]
    return sum(int(value > 127) << bit for bit, value in enumerate(row))


def disc() -> np.ndarray:
    """Return a 1080p image of an orange disc."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3), np.uint8)
    pixels[(y - 500) ** 2 + (x - 900) ** 2 < 250**2] = (230, 120, 40)
    return pixels


def new_viewer(home: Path) -> Any:
    """Return a napari viewer whose settings and the plugin's begin anew."""
    os.environ["NAPARI_SAMEXP_HOME"] = os.environ["XDG_DATA_HOME"] = str(home)
    os.environ["NAPARI_CONFIG"] = ""
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(1280, 860)
    live(1.0)
    return viewer


def canvas_of(viewer: Any) -> Any:
    """Return the widget that is drawn in and clicked on."""
    return viewer.window._qt_viewer.canvas.native


def live(seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
    """Let the window live in its own event loop until something is so; False if the time was over first."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop, poll = QEventLoop(), QTimer()
    end = time.perf_counter() + seconds

    def look() -> None:
        if until() or time.perf_counter() > end:
            loop.quit()

    poll.timeout.connect(look)
    poll.start(2)
    loop.exec()
    poll.stop()
    return until()


@contextmanager
def window() -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as home:
        viewer = new_viewer(Path(home))
        yield viewer
        viewer.close()
        live(0.3)


def wait(until: Callable[[], bool], what: str) -> None:
    if not live(PATIENCE_S, until):
        raise SystemExit(f"{what} did not come")


def click(viewer: Any, x: float, y: float) -> None:
    """Click on the canvas at a place of the world."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    canvas = canvas_of(viewer)
    camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera  # napari 0.9 moved it
    middle = np.array([canvas.width(), canvas.height()]) / 2
    place = (
        np.array([x, y]) - np.array(camera.center)[:0:-1]
    ) * camera.zoom / canvas.devicePixelRatioF() + middle
    point = QPoint(*(round(float(value)) for value in place))
    QTest.mouseMove(canvas, point)
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, point)


class Drawn:
    """Notes when the canvas was drawn last."""

    def __init__(self, viewer: Any) -> None:
        self.at = 0.0
        self.count = 0
        canvas_of(viewer).frameSwapped.connect(self._drawn)

    def _drawn(self) -> None:
        self.at, self.count = time.perf_counter(), self.count + 1


class Heartbeat:
    """A timer of one millisecond on the window's thread; what lies between two beats, the window was busy.

    `cpu` has the processor's time that the thread itself took in each gap: on a busy machine, the rest is
    waiting for a core, for the interpreter, or for software that draws on threads of its own.
    """

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.parts: dict[str, Times] = {}
        self.cpu: dict[str, Times] = {}
        self._last = self._spent = 0.0
        self._gaps: Times | None = None
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._beat)
        self._timer.start(1)

    def _beat(self) -> None:
        now, spent = time.perf_counter(), time.thread_time()
        if self._gaps is not None:
            self._gaps.append(now - self._last)
            self._cpus.append(spent - self._spent)
        self._last, self._spent = now, spent

    @contextmanager
    def part(self, name: str) -> Iterator[Times]:
        """Gather gaps under a name."""
        self._gaps, self._cpus = self.parts.setdefault(name, []), self.cpu.setdefault(name, [])
        self._last, self._spent = time.perf_counter(), time.thread_time()
        try:
            yield self._gaps
            live(0.05)
        finally:
            self._gaps = None


def line(name: str, seconds: Iterable[float], note: str = "") -> str:
    """Return one row of a table, in milliseconds."""
    values = 1000 * np.array(list(seconds))
    if not len(values):
        return f"| {name} | | | | | 0 | {note} |"
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return f"| {name} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {values.max():.1f} | {len(values)} | {note} |"


HEAD = "| ms | p50 | p95 | p99 | max | n | |\n|---|---|---|---|---|---|---|"
