"""The napari that `kills.py` kills: a person's whole job in the dock, told line by line on standard output.

    python -m tests.kill.window WORK CLIP SIDE NAME

It takes over what the last session left, records a prompt called NAME, saves the prior, and tracks or goes on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 240.0


def tell(what: str, **facts: object) -> None:
    """Print what has been reached; whoever reads it may kill this process at once."""
    print(json.dumps({"event": what, **facts}), flush=True)


def until(so: Callable[[], bool], what: str) -> None:
    from qtpy.QtTest import QTest

    end = time.monotonic() + PATIENCE_S
    while not so():
        if time.monotonic() > end:
            raise TimeoutError(what)
        QTest.qWait(5)


def names(session: Any) -> list[str]:
    return [info.name for info in session.recordings.all]


def take_over(dock: Any) -> None:
    """Reopen what was left, if it is offered."""
    from qtpy.QtTest import QTest

    session = dock.session
    if session.left_sessions() or session.settings.last_run is not None:
        QTest.qWait(300)  # the offer comes from a thread
        until(lambda: dock.panel.reopen.isVisible(), "the offer to reopen")
        left = dock.reopening.leftover
        dock.reopening.reopen()
        if left.recordings is not None:
            until(lambda: bool(session.recordings.all), "the recordings")
        if left.run is not None:
            until(lambda: session.results.labels is not None, "the labels")
            until(lambda: dock.videos.current is not None, "the video")
    tell("recovered", names=names(session))


def show_object(viewer: Any, dock: Any) -> None:
    from napari_samexp.samples import load_sample

    scene = load_sample()
    viewer.open_sample("napari-samexp", "image")
    until(lambda: dock.prompts.layers is not None, "a layer for clicks")
    image = next(layer for layer in viewer.layers if layer.name == "sample image")
    dock.images.refill()
    dock.images.choose(image)
    tell("previewing")
    for (x, y), label in zip(scene.points_xy, scene.labels):
        dock.prompts.layers.add_point(float(x), float(y), (), "object" if label else "background")
    until(lambda: dock.session.prompting.preview is not None, "a preview")


def track(dock: Any, clip: str) -> None:
    tracking = dock.session.tracking
    tracking.frame_done.connect(lambda index: tell("frame", index=index, store=tracking.job.store))
    if tracking.job.resumable:
        tell("resuming", store=tracking.job.store)
        tracking.resume()
    else:
        if dock.videos.current is None:
            dock.open_video_from(clip)
            until(lambda: dock.videos.current is not None, "the video")
        tell("tracking")
        dock.run.track()
    until(lambda: tracking.job.state == "finished", f"the last frame: {tracking.job}")
    tell("finished", store=tracking.job.store)


def main() -> None:
    work, clip, side, name = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    tell("loading")
    import napari

    viewer = napari.Viewer(show=True)
    _, dock = viewer.window.add_plugin_dock_widget("napari-samexp", "Prior tracking")
    session = dock.session
    session.notice.connect(lambda sentence: tell("said", sentence=sentence))
    tell("session", folder=str(session.folder))
    until(lambda: session.models.state.usable, "the model")
    session.change_settings(side=side)
    take_over(dock)
    show_object(viewer, dock)
    tell("recording", name=name)
    session.prompting.record(1, name)
    until(lambda: name in names(session), "the recording")
    tell("recorded", names=names(session))
    saved = work / "window-saved.safetensors"
    tell("saving")
    here: list[object] = []
    session.recordings.saved.connect(here.append)
    dock.save_prior_to(str(saved))
    until(lambda: bool(here), "the saved prior")
    tell("saved", names=names(session))
    track(dock, clip)
    if len(names(session)) > 3:
        session.recordings.clear()
        until(lambda: not names(session), "no recordings")
        tell("cleared")
    viewer.close()


if __name__ == "__main__":
    main()
