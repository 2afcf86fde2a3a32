"""Make the images and short films of the docks, in napari's dark and light theme: ``make images``.

What is in the images (which controls, what they say) is written beside them, so that a test can compare both
with the real window. Needs a screen of 1400 x 900 with 24 bits, such as Xvfb's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent / "images"
CONTENTS = "contents.json"
THEMES = ("dark", "light")
SIZE, NARROW = (1280, 800), (900, 700)
FILM_SIZE = (640, 400)
IMAGE_QUALITY, FILM_QUALITY = 82, 50
PATIENCE_S = 600.0
OF_TIME = ("estimate", "progress")  # their words tell of this machine's speed
_NUMBER = re.compile(r"\d+([.,]\d+)?")


class Studio:
    """Takes images of one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
    out : Path
        Folder of the images.
    contents : dict
        Gets what each image shows.
    films : bool
        Whether short films are wanted too.
    """

    def __init__(self, viewer: Any, out: Path, contents: dict[str, Any], films: bool) -> None:
        self.viewer, self.out, self.contents, self.films = viewer, out, contents, films
        self._film: dict[str, list[Any]] = {theme: [] for theme in THEMES}

    def keep(self, name: str, dock: Any, film: int = 0) -> None:
        """Keep what the window looks like in each theme, and what the dock's controls say.

        The film gets it too, for `film` times as long as other frames.
        """
        dock.clear_message()
        for theme in self._themes():
            shot = self._shot()
            shot.save(self.out / f"{name}-{theme}.webp", quality=IMAGE_QUALITY)
            self._film[theme] += [shot.resize(FILM_SIZE)] * film
        self.contents[name] = controls(dock)

    def film(self, steps: Iterable[int], go_to: Callable[[int], None]) -> None:
        """Add a frame a step to the film."""
        for theme in self._themes() if self.films else ():
            for step in steps:
                go_to(step)
                self._film[theme].append(self._shot().resize(FILM_SIZE))

    def keep_film(self, name: str, frame_ms: int) -> None:
        """Write what was filmed, and begin another film."""
        for theme, frames in self._film.items():
            if frames and self.films:
                first, *rest = frames
                first.save(
                    self.out / f"{name}-{theme}.webp",
                    save_all=True,
                    append_images=rest,
                    duration=frame_ms,
                    loop=0,
                    quality=FILM_QUALITY,
                )
            frames.clear()

    def _themes(self) -> Iterator[str]:
        """Go through the themes, from the one that is there: to change it takes napari long."""
        here = self.viewer.theme
        for theme in sorted(THEMES, key=lambda theme: theme != here):
            if self.viewer.theme != theme:
                self.viewer.theme = theme
                wait(0.3)
            yield theme

    def _shot(self) -> Any:
        from PIL import Image

        wait(0.2)
        return Image.fromarray(self.viewer.screenshot(canvas_only=False, flash=False)).convert("RGB")


def controls(dock: Any) -> list[list[Any]]:
    """Return every named control of a dock that is shown: name, kind, whether it can be used, and its words."""
    from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QWidget

    found = []
    for control in dock.panel.findChildren(QWidget):
        name = control.objectName()
        inner = isinstance(control.parentWidget(), QAbstractSpinBox | QComboBox)
        if not name or name.startswith("qt_") or inner or not control.isVisibleTo(dock.panel):
            continue
        words = control.currentText() if isinstance(control, QComboBox) else getattr(control, "text", str)()
        if name in OF_TIME:
            words = ""
        # numbers depend on the weights and the machine
        found.append([name, type(control).__name__, control.isEnabled(), _NUMBER.sub("#", words)])
    return found


def prior_tracking(out: Path, contents: dict[str, Any], films: bool) -> None:
    """Go through the main job."""
    import napari

    from napari_samexp.samples import load_sample

    sample = load_sample()
    clip = Path(tempfile.mkdtemp()) / "clip.mp4"
    shutil.copy(sample.clip_path, clip)
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    studio = Studio(viewer, out, contents, films)
    _, dock = viewer.window.add_plugin_dock_widget("napari-samexp", "Prior tracking")
    wait(PATIENCE_S, lambda: dock.session.models.state.usable and dock.prompts.begun)
    dock.panel.welcome.sample.click()
    wait(PATIENCE_S, lambda: dock.prompts.layers is not None)
    wait(0.5)
    viewer.reset_view()
    studio.keep("0-welcome", dock)
    dock.panel.welcome.close_button.click()
    viewer.layers.clear()
    wait(PATIENCE_S, lambda: dock.prompts.layers is None)
    viewer.open_sample("napari-samexp", "image")
    wait(PATIENCE_S, lambda: dock.prompts.layers is not None)
    wait(0.5)
    viewer.reset_view()
    studio.keep("1-first-step", dock, film=3)
    for (x, y), label in zip(sample.points_xy, sample.labels):
        dock.prompts.layers.add_point(float(x), float(y), (), "object" if label else "background")
    wait(PATIENCE_S, lambda: dock.session.prompting.preview is not None)
    wait(0.2)
    dock.panel.name.setText("star")
    studio.keep("2-clicked", dock, film=4)
    dock.panel.record.click()
    wait(PATIENCE_S, lambda: bool(dock.session.recordings.all))
    dock.open_video_from(str(clip))
    wait(PATIENCE_S, lambda: dock.videos.current is not None)
    viewer.layers["sample image"].visible = False
    _track(studio, dock, len(sample.ground_truth))
    dock.panel.settings_section.head.setChecked(True)
    area = dock.scroll_area
    wait(0.4)  # the area learns of its new height
    area.verticalScrollBar().setValue(area.verticalScrollBar().maximum())
    studio.keep("5-settings", dock)
    dock.panel.settings_section.head.setChecked(False)
    viewer.window.resize(*NARROW)
    wait(0.4)
    viewer.reset_view()
    area.verticalScrollBar().setValue(0)
    studio.keep("6-narrow", dock)
    viewer.close()
    wait(0.5)


def _track(studio: Studio, dock: Any, count: int) -> None:
    job = dock.session.tracking
    dock.panel.track.click()
    wait(PATIENCE_S, lambda: job.job.done > count // 3)
    dock.panel.pause.click()  # so that each time the same is seen
    wait(PATIENCE_S, lambda: job.job.state == "paused")
    studio.viewer.dims.set_current_step(0, count // 4)
    studio.keep("3-paused", dock, film=2)
    dock.panel.pause.click()
    wait(PATIENCE_S, lambda: job.job.state == "finished")
    studio.film(range(count // 3, count, 3), lambda index: studio.viewer.dims.set_current_step(0, index))
    studio.keep_film("tracking", 350)
    studio.viewer.dims.set_current_step(0, count // 2)
    studio.keep("4-tracked", dock)


def position_encodings(out: Path, contents: dict[str, Any], films: bool) -> None:
    """Keep what the dock "Position encodings" looks like beside a video."""
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    studio = Studio(viewer, out, contents, films)
    viewer.open_sample("napari-samexp", "clip")
    _, dock = viewer.window.add_plugin_dock_widget("napari-samexp", "Position encodings")
    wait(PATIENCE_S, lambda: dock.session.first.current is not None)
    dock.panel.similarity.setChecked(True)
    dock.panel.add_layers.click()
    wait(PATIENCE_S, lambda: bool(dock.panel.frequencies.series))
    dock.layers.go_to_channel(17)
    dock.layers.set_similarity(0, dock.session.first.current.similarity(30, 12))
    wait(0.5)
    studio.keep("8-position-encodings", dock)
    studio.film(range(0, 40, 4), dock.layers.go_to_channel)
    studio.keep_film("channels", 400)
    viewer.close()
    wait(0.5)


def wait(seconds: float, until: Callable[[], bool] | None = None) -> None:
    """Let the window live for a while, or until something is so; that it never becomes so is an error."""
    from qtpy.QtWidgets import QApplication

    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if until is not None and until():
            return
        QApplication.processEvents()
        time.sleep(0.002)
    if until is not None:
        raise TimeoutError("the window did not come as far as the image needs")


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="the folder, by default docs/images")
    parser.add_argument("--no-films", action="store_true", help="images only")
    given = parser.parse_args()
    # nobody's own settings, recordings or labels are in an image
    home = tempfile.mkdtemp()
    os.environ["NAPARI_SAMEXP_HOME"] = os.environ["XDG_DATA_HOME"] = home
    os.environ["NAPARI_CONFIG"] = f"{home}/napari.yaml"
    given.out.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Any] = {}
    for scenes in (prior_tracking, position_encodings):
        scenes(given.out, contents, not given.no_films)
    text = json.dumps(contents, indent=1, ensure_ascii=False)
    # a control a line
    text = re.sub(
        r"\[\s+(\"[^\]]*?)\s+\]", lambda found: "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]", text
    )
    (given.out / CONTENTS).write_text(text + "\n", encoding="utf-8")
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
