"""The demo's window: the sample image, the clip, the dock, and a recording that is ready to be tracked."""

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

SETTLED_MS = 300  # for the dock to have taken its width from the canvas


def fill(viewer: Any, folder: Path) -> Any:
    """Show what `napari-samexp demo` prepared in a folder, and return the dock."""
    image, clip = read_image(folder / "prior.png"), folder / "clip.mp4"
    place = (0, -BESIDE * image.shape[1])
    viewer.add_image(image, name="image with the object", rgb=True, translate=place)
    add_video(viewer, open_video(clip), path=clip)
    dock = open_dock(viewer)
    dock.load_prior_from(str(folder / "prior.safetensors"))
    QTimer.singleShot(SETTLED_MS, viewer.reset_view)
    return dock


def main() -> None:
    """Open napari with the demo in the folder that is named."""
    fill(napari.Viewer(title="napari-samexp demo"), Path(sys.argv[1]))
    napari.run()


if __name__ == "__main__":
    main()
