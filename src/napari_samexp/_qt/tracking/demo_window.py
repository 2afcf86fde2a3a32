"""The window of the demo: sample image, clip, dock, and a recording ready to be tracked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import napari
from qtpy.QtCore import QTimer

from napari_samexp._qt.readers import open_dock
from napari_samexp._qt.sample_data import BESIDE
from napari_samexp._qt.shown_video import add_video
from napari_samexp.io.image import read_image
from napari_samexp.io.video import open_video

__all__ = ["fill", "main"]

SETTLE_MS = 300  # until the dock has its width


def fill(viewer: Any, folder: Path) -> Any:
    """Show what `napari-samexp demo` prepared in a folder, and return the dock."""
    image, clip = read_image(folder / "prior.png"), folder / "clip.mp4"
    translate = (0, -BESIDE * image.shape[1])
    viewer.add_image(image, name="image with the object", rgb=True, translate=translate)
    add_video(viewer, open_video(clip), path=clip)
    dock = open_dock(viewer)
    dock.load_prior_from(str(folder / "prior.safetensors"))
    QTimer.singleShot(SETTLE_MS, viewer.reset_view)
    return dock


def main() -> None:
    """Open napari with the demo in the folder given as argument."""
    fill(napari.Viewer(title="napari-samexp demo"), Path(sys.argv[1]))
    napari.run()


if __name__ == "__main__":
    main()
