"""Opening and closing the dock leaves nothing; `benchmarks/feel/dock_cycles.py` does it 200 times with real workers."""

from __future__ import annotations

import gc
import threading
from typing import Any

from napari_samexp._qt.connections import WindowThread
from napari_samexp._qt.dock import Dock
from napari_samexp._qt.tracking.prior_tracking import PriorTracking
from napari_samexp.session.session import Session
from tests._qt.fake_engine import FakeEngine


def callbacks(viewer: Any) -> int:
    groups = [viewer.events, viewer.layers.events, viewer.layers.selection.events, viewer.dims.events]
    groups += [layer.events for layer in viewer.layers]
    emitters = [emitter for group in groups for emitter in group.emitters.values()]
    return sum(len(emitter.callbacks) for emitter in emitters) + len(viewer.mouse_move_callbacks)


def samexp_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if "samexp" in thread.name)


def test_docks_come_and_go_without_a_trace(qtbot, viewer, image, tmp_path):
    viewer.add_image(image, rgb=True)
    # threads of earlier tests that have nothing to do end within seconds
    qtbot.waitUntil(lambda: not samexp_threads(), timeout=20_000)
    before = None
    for _ in range(8):
        deliver = WindowThread()
        session = Session(home=tmp_path / "home", make_engine=FakeEngine, deliver=deliver)
        dock = PriorTracking(viewer, session)
        dock.show()
        qtbot.waitUntil(lambda dock=dock: dock.prompts.layers is not None)
        dock.prompts.layers.add_point(30.0, 20.0, (), "object")
        qtbot.waitUntil(lambda session=session: session.prompting.preview is not None)
        dock.close()
        dock.deleteLater()
        del dock, session, deliver
        qtbot.waitUntil(lambda: not any("closing" in thread.name for thread in threading.enumerate()))
        qtbot.wait(10)
        gc.collect()
        left = (
            callbacks(viewer),
            [layer.name for layer in viewer.layers],
            samexp_threads(),
            len(list((tmp_path / "home" / "sessions").glob("*"))),
        )
        assert before is None or left == before
        before = left
    qtbot.waitUntil(lambda: not docks(), timeout=20_000)


def docks() -> int:
    gc.collect()
    return sum(isinstance(thing, Dock) for thing in gc.get_objects())
