"""Open and close the dock many times in one napari, and count what is left.

    python -m benchmarks.feel.dock_cycles [--cycles 200] [--whole 10]     (with a screen, or under xvfb-run)

Every time, a worker process is started and ended; every tenth time (--whole), the model is loaded and a click is
previewed first, so that shared memory is in use. With --image there is a layer to click on, and every dock makes
and removes a points layer: where the screen is drawn by software, some 2.5 MB each stay with the driver, since
letting go of them would end napari there. A line each ten cycles: resident memory, threads, open files, child
processes, blocks of shared memory, temporary files, folders of sessions, widgets that Python still knows, and
callbacks that are still connected to the viewer. The last line compares the second half with its beginning.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from napari_samexp.types import Prompt

IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
GROWTH_KB = 20.0  # of resident memory a cycle, over the second half; a leaked dock is a megabyte
COUNTS = ("threads", "files", "children", "shared_blocks", "temp_files", "sessions", "docks", "callbacks")


def live(seconds: float, until: Any = lambda: False) -> bool:
    from qtpy.QtTest import QTest

    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        QTest.qWait(10)
    return bool(until())


def callbacks(viewer: Any) -> int:
    """Return how much is connected to the viewer and its layers."""
    groups = [viewer.events, viewer.layers.events, viewer.layers.selection.events, viewer.dims.events]
    groups += [layer.events for layer in viewer.layers]
    emitters = [emitter for group in groups for emitter in group.emitters.values()]
    return sum(len(emitter.callbacks) for emitter in emitters) + len(viewer.mouse_move_callbacks)


def counted(viewer: Any, home: Path) -> dict[str, Any]:
    from napari_samexp._qt.dock import Dock

    gc.collect()
    process = psutil.Process()
    shm = Path("/dev/shm")
    children = [c for c in process.children() if "resource_tracker" not in " ".join(c.cmdline())]
    return {
        "rss_MB": round(process.memory_info().rss / 1e6, 2),
        "threads": sum(
            thread.name.startswith(("napari-samexp", "samexp")) for thread in threading.enumerate()
        ),
        "files": process.num_fds() if hasattr(process, "num_fds") else process.num_handles(),
        "children": len(children),
        "shared_blocks": len(list(shm.glob(f"smx{os.getpid()}-*"))) if shm.is_dir() else 0,
        "temp_files": len(list(Path(tempfile.gettempdir()).iterdir())),
        "sessions": len(list((home / "sessions").glob("*"))),
        "docks": sum(isinstance(thing, Dock) for thing in gc.get_objects()),
        "callbacks": callbacks(viewer),
    }


def cycle(viewer: Any, whole: bool, image: bool) -> None:
    """Open the dock, let its worker start, in a whole cycle load and preview, and close it."""
    _, dock = viewer.window.add_plugin_dock_widget("napari-samexp", "Prior tracking")
    engine = dock.session._proxy.engine
    assert live(60, lambda: engine.pid is not None), "no worker was started"
    if whole:
        assert live(300, lambda: dock.session.models.state.usable and dock.prompts.begun)
        if image:
            dock.prompts.layers.add_point(30.0, 20.0, (), "object")
        else:
            dock.session.prompting.set_image(IMAGE, "image")
            dock.session.prompting.set_prompt(Prompt.from_lists(objects=[(30, 20)]))
        assert live(300, lambda: dock.session.prompting.preview is not None)
    viewer.window.remove_dock_widget(dock.parentWidget())
    assert live(60, lambda: dock.session is None and engine.pid is None), "the worker did not end"
    names = ("napari-samexp closing", "napari-samexp line", "napari-samexp imports", "samexp opening")
    live(30, lambda: not any(thread.name in names for thread in threading.enumerate()))


def judged(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare the second half of the measurements with its first."""
    half = lines[len(lines) // 2 :]
    cycles, rss = [line["cycle"] for line in half], [line["rss_MB"] for line in half]
    slope = 1000 * float(np.polyfit(cycles, rss, 1)[0]) if len(half) > 1 else 0.0
    grown = {name: half[-1][name] - half[0][name] for name in COUNTS if half[-1][name] > half[0][name]}
    return {"kB_per_cycle": round(slope, 1), "grown": grown, "held": slope <= GROWTH_KB and not grown}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--whole", type=int, default=10, help="a whole cycle each so many")
    parser.add_argument("--image", action="store_true", help="with a layer to click on")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "tmp").mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(home / "tmp")
        os.environ["NAPARI_SAMEXP_HOME"], os.environ["NAPARI_CONFIG"] = str(home), ""
        os.environ["OMP_NUM_THREADS"] = "1"
        import napari

        viewer = napari.Viewer(show=True)
        if args.image:
            viewer.add_image(IMAGE, rgb=True)
        lines = []
        for number in range(1, args.cycles + 1):
            cycle(viewer, number % args.whole == 0, args.image)
            if number % 10 == 0:
                lines.append({"cycle": number, **counted(viewer, home)})
                print(json.dumps(lines[-1]), flush=True)
        print(json.dumps(judged(lines)))
        viewer.close()


if __name__ == "__main__":
    main()
