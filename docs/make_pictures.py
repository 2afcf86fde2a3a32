"""Make the pictures of the docks: ``xvfb-run -s "-screen 0 1400x900x24" python docs/make_pictures.py [WEIGHTS]``.

Also prints how long the dock took to open, and the event loop's heartbeat while tracking and scrubbing.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

OUT = Path(__file__).parent / "images"
PATIENCE_S = 240.0


def main() -> None:
    """Go through the main job and keep what it looks like."""
    home = tempfile.mkdtemp()
    os.environ["NAPARI_SAMEXP_HOME"] = os.environ["XDG_DATA_HOME"] = home
    import napari
    import numpy as np
    from PIL import Image

    from napari_samexp.samples import load_sample

    OUT.mkdir(parents=True, exist_ok=True)
    weights = sys.argv[1] if len(sys.argv) > 1 else "starter"
    sample = load_sample()
    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)
    beats: list[float] = []

    def keep(name: str) -> None:
        wait(0.4)
        shot = Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)).convert("RGB")
        shot.quantize(255).save(OUT / f"{name}.png", optimize=True)  # a third of the size

    viewer.open_sample("napari-samexp", "picture")
    began = time.perf_counter()
    _, dock = viewer.window.add_plugin_dock_widget("napari-samexp", "Prior tracking")
    print(f"dock open: {time.perf_counter() - began:.3f} s")
    wait(PATIENCE_S, lambda: dock.prompts.layers is not None and dock.session.models.state.usable)
    wait(0.3)
    viewer.reset_view()
    keep("1-first-step")
    if weights != "starter":
        dock.session.load_model(weights)
        wait(PATIENCE_S, lambda: dock.session.models.state.state == "ready")
    for (x, y), label in zip(sample.points_xy, sample.labels):
        dock.prompts.layers.add_point(float(x), float(y), (), "object" if label else "background")
    wait(PATIENCE_S, lambda: dock.session.prompting.preview is not None)
    keep("2-clicked")
    dock.panel.name.setText("star")
    dock.panel.record.click()
    wait(PATIENCE_S, lambda: bool(dock.session.recordings.all))
    dock.open_video_from(str(sample.clip_path))
    wait(PATIENCE_S, lambda: dock.videos.current is not None)
    viewer.layers["sample picture"].visible = False
    dock.panel.track.click()
    count = len(sample.truth)

    def beat() -> bool:
        beats.append(time.perf_counter())
        viewer.dims.set_current_step(0, len(beats) // 40 % count)
        return not dock.session.tracking.job.active

    wait(PATIENCE_S, lambda: dock.session.tracking.job.done > count // 3)
    keep("3-tracking")
    wait(PATIENCE_S, beat)
    gaps = np.diff(beats) * 1e3
    if len(gaps):
        p50, p99 = np.percentile(gaps, (50, 99))
        print(
            f"heartbeat while tracking and scrubbing: p50 {p50:.0f}, p99 {p99:.0f}, max {gaps.max():.0f} ms"
        )
    viewer.dims.set_current_step(0, count // 2)
    keep("4-tracked-dark")
    viewer.theme = "light"
    keep("5-tracked-light")
    dock.panel.settings_section.head.setChecked(True)
    area = dock.layout().itemAt(0).widget()
    wait(0.4)  # the area learns of its new height
    area.verticalScrollBar().setValue(area.verticalScrollBar().maximum())
    keep("6-settings-light")
    viewer.theme = "dark"
    viewer.window.resize(900, 700)
    wait(0.3)
    viewer.reset_view()
    area.verticalScrollBar().setValue(0)
    keep("7-narrow")
    print("torch imported:", "torch" in sys.modules)
    viewer.close()
    wait(0.5)


def position_encodings() -> None:
    """Keep what the dock "Position encodings" looks like beside a video."""
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)
    viewer.open_sample("napari-samexp", "clip")
    _, dock = viewer.window.add_plugin_dock_widget("napari-samexp", "Position encodings")
    wait(PATIENCE_S, lambda: dock.session.first.current is not None)
    dock.panel.similarity.setChecked(True)
    dock.panel.add_layers.click()
    dock.layers.go_to_channel(17)
    dock.layers.set_similarity(0, dock.session.first.current.similarity(30, 12))
    wait(1.0)  # for the plot of frequencies
    viewer.screenshot(str(OUT / "8-position-encodings.png"), canvas_only=False, flash=False)
    viewer.close()
    wait(0.5)


def wait(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Let the window live until something is so, or the time is over."""
    from qtpy.QtWidgets import QApplication

    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not until():
        QApplication.processEvents()
        time.sleep(0.002)


if __name__ == "__main__":
    main()
    position_encodings()
