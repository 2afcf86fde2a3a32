"""How long the window is busy for each map, channel and pointer move of the dock "Position encodings".

    xvfb-run -a -s "-screen 0 1400x900x24" python -m benchmarks.feel.posenc_redraw [--video] [--steps 100]

The map has 768 channels of 64 x 64 tokens, random numbers. "shown" is the time in which the layers take the new
values; "painted" also has the painting of the whole window, which without a graphics card takes most of it.
"CPU" is what the window's thread itself computed for both, which other programs disturb least.
The row "napari alone" replaces the data of one layer of an otherwise empty viewer, as the least that can be.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CHANNELS, SIDE = 768, 64
PATIENCE_S = 60.0


def wait(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    from qtpy.QtWidgets import QApplication

    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not until():
        QApplication.processEvents()
        time.sleep(0.001)


def row(name: str, step: Callable[[int], object], steps: int) -> None:
    """Print how long `step` takes, and until the window is painted."""
    from qtpy.QtWidgets import QApplication

    shown, painted, busy = [], [], []
    for index in range(steps + 5):
        began, thread = time.perf_counter(), time.thread_time()
        step(index)
        middle = time.perf_counter()
        QApplication.processEvents()
        if index >= 5:  # the first ones make what the others find
            shown.append(1e3 * (middle - began))
            painted.append(1e3 * (time.perf_counter() - began))
            busy.append(1e3 * (time.thread_time() - thread))
    numbers = [np.percentile(each, p) for each in (shown, painted, busy) for p in (50, 95)]
    print(f"{name:<44}" + "".join(f"{number:>9.1f}" for number in numbers), flush=True)


def drag(dock: Any, seconds: float = 4.0) -> None:
    """Move a slider every 16 ms, and print what becomes of it."""
    maps, gaps, moved, late = [], [], time.perf_counter(), []
    asked: dict[int, float] = {}

    def arrived(made: Any) -> None:
        maps.append(made)
        late.append(1e3 * (time.perf_counter() - asked[made.grid_hw[0]]))

    dock.session.first.changed.connect(arrived)
    last, step, end = time.perf_counter(), 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        wait(0.001)
        now = time.perf_counter()
        gaps.append(1e3 * (now - last))
        last = now
        if now - moved >= 0.016:
            moved, step = now, step + 1
            height = 40 + step % 60
            asked[height] = now
            dock.panel.grid_height.setValue(height)
    dock.session.first.changed.disconnect(arrived)
    p50, p95, most = *np.percentile(gaps, (50, 95)), max(gaps)
    print(f"\na slider dragged for {seconds:.0f} s, {step} moves: {len(maps)} maps shown,")
    print(f"from a move to its map p50 {np.percentile(late, 50):.0f}, p95 {np.percentile(late, 95):.0f} ms;")
    print(f"gaps of the window's loop p50 {p50:.0f}, p95 {p95:.0f}, longest {most:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video", action="store_true", help="with the sample clip open beside it")
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    home = tempfile.mkdtemp()
    os.environ["NAPARI_SAMEXP_HOME"] = os.environ["XDG_DATA_HOME"] = home
    import napari
    from safetensors.numpy import save_file

    from napari_samexp.posenc.map import PosencMap

    rng = np.random.default_rng(0)
    table = rng.standard_normal((1, SIDE, SIDE, CHANNELS)).astype(np.float32)
    save_file({"image_encoder.pos_embed": table}, Path(home) / "vit.safetensors")
    maps = [
        PosencMap(rng.standard_normal((CHANNELS, SIDE - k, SIDE)).astype(np.float32), "vit") for k in range(4)
    ]
    for made in maps:  # as they come from the session
        made.norm(), made.limits()
    viewer = napari.Viewer()
    viewer.window.resize(1380, 860)
    print(f"{'ms':<44}{'shown':>9}{'p95':>9}{'painted':>9}{'p95':>9}{'CPU':>9}{'p95':>9}")
    bare = viewer.add_image(maps[0].values, contrast_limits=(-3, 3))
    wait(1)
    row("napari alone, one layer's data", lambda i: setattr(bare, "data", maps[i % 4].values), args.steps)
    viewer.layers.clear()
    if args.video:
        viewer.open_sample("napari-samexp", "clip")
    _, dock = viewer.window.add_plugin_dock_widget("napari-samexp", "Position encodings")
    wait(PATIENCE_S, lambda: dock.session.first.current is not None)
    dock.choose(str(Path(home) / "vit.safetensors"))
    wait(PATIENCE_S, lambda: dock.session.first.current is not None)
    dock.panel.show_norm.setChecked(False)
    dock.panel.add_layers.click()
    wait(1)
    row("map alone, other height", lambda i: dock._arrived(0, maps[i % 4]), args.steps)
    same = [maps[0], PosencMap(maps[0].values[::-1].copy(), "vit")]
    same[1].norm(), same[1].limits()
    row("map alone, same grid (tile, numbers)", lambda i: dock._arrived(0, same[i % 2]), args.steps)
    dock.panel.show_norm.setChecked(True)
    wait(0.5)
    row("map and norm, other height", lambda i: dock._arrived(0, maps[i % 4]), args.steps)
    row("channel", lambda i: dock.layers.go_to_channel(7 * i % CHANNELS), args.steps)
    dock.panel.similarity.setChecked(True)
    dock._arrived(0, maps[0])
    wait(0.5)
    row("similarity to another token", lambda i: _similarity(dock, maps[0], i), args.steps)
    dock.panel.similarity.setChecked(False)
    wait(0.5)
    drag(dock)
    viewer.close()
    wait(0.5)


def _similarity(dock: Any, made: Any, index: int) -> None:
    height, width = made.hw
    dock.layers.set_similarity(0, made.similarity(index % height, (3 * index) % width))


if __name__ == "__main__":
    main()
