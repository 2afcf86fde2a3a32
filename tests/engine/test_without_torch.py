"""A whole session in a fresh process: it loads, previews, records, tracks, corrects, and never sees torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.engine.engine_tools import OPTIONS, frames, image

SCRIPT = """
import queue, sys
from pathlib import Path
import numpy as np
from napari_samexp.engine import WorkerOptions
from napari_samexp.session import Session
from napari_samexp.types import Prompt

model, home, store, pixels, options = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], eval(sys.argv[5])
arrays = np.load(pixels)
calls, told = queue.Queue(), []
session = Session(deliver=calls.put, home=home, options=options)
session.notice.connect(told.append)


def until(condition):
    while not condition():
        calls.get(timeout=200)()
        assert not told, told


session.start()
session.load_model(model, device="cpu")
until(lambda: session.models.state.usable)
session.prompting.set_image(arrays["image"], "disc")
session.prompting.set_prompt(Prompt.from_lists([(30, 20)]))
until(lambda: session.prompting.preview is not None)
assert session.prompting.preview.mask().shape == arrays["image"].shape[:2]
session.prompting.record(1, "disc")
until(lambda: session.recordings.all)
session.tracking.set_video(arrays["frames"])
session.tracking.track(store=store)
session.tracking.pause()
until(lambda: session.tracking.job.state == "paused")
session.results.labels[len(arrays["frames"]) - 1, 0:4, 0:4] = 1
session.tracking.resume()
until(lambda: session.tracking.job.state == "finished")
labels = np.asarray(session.results.labels[:])
assert labels[:-1].any() and labels[-1].sum() == 16, labels[-1].sum()
session.corrections.remember_frame(len(labels) - 1, 1)
until(lambda: len(session.recordings.all) == 2)
session.tracking.track(range(5, len(labels)), store=store, again=True)
until(lambda: session.tracking.job.state == "finished")
session.recordings.undo()
until(lambda: len(session.recordings.all) == 1)
session.recordings.save(home / "prior.safetensors")
until(lambda: not session.recordings.unsaved)
session.close()
heavy = {"torch", "napari", "qtpy"} & set(sys.modules)
assert not heavy, heavy
print("never")
"""


def test_the_viewers_process_never_imports_torch(tmp_path: Path, tiny_file: Path) -> None:
    np.savez(tmp_path / "pixels.npz", image=image(), frames=frames())
    arguments = [tiny_file, tmp_path / "home", tmp_path / "s.zarr", tmp_path / "pixels.npz", repr(OPTIONS)]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, *map(str, arguments)], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "never\n", "")
