"""No small video takes much memory or time, whatever its headers claim; and no honest one is refused for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from napari_samexp.io._video_claims import plausible_size
from napari_samexp.io.video import open_video
from tests import ROOT
from tests.fuzz.videos import edits, encoded, grown

MOST_BYTES, MOST_S = 1 << 30, 10.0  # docs/reliability.md

CHILD = """
import json, resource, sys, time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from tests.fuzz.guard import _forget_peak, _status
from tests.fuzz.videos import CLAIMS, write_claim
from napari_samexp.io.video import open_video
from napari_samexp.errors import VideoError

for name in CLAIMS:
    path = write_claim(name, Path(sys.argv[2]))
    _forget_peak()
    before, began = _status("VmRSS"), time.process_time()
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + (8 << 30), resource.RLIM_INFINITY))
    try:
        with open_video(path) as video:
            said = f"opened, {len(video)} frames"
    except VideoError as error:
        said = "" if str(error).count("\\n") == 0 and path.name in str(error) else str(error)
    taken = _status("VmHWM") - before
    print(json.dumps([name, path.stat().st_size, said, taken, time.process_time() - began]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux alone")
def test_small_videos_that_claim_much_are_refused_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(ROOT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert len(rows) >= 18
    assert not [row for row in rows if row[2]]
    assert not [row for row in rows if row[1] > 1_000_000 or row[3] > MOST_BYTES or row[4] > MOST_S]


def test_uncompressed_sound_may_have_many_samples(tmp_path: Path) -> None:
    """A byte a sample, and more samples than the file has room for in an index of video frames."""
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        sound = file.add_stream("pcm_u8", rate=48_000, layout="mono")
        for _ in range(30):
            file.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24"))
            )
        second = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.uint8), format="u8", layout="mono")
        second.sample_rate = 48_000
        for _ in range(20):
            file.mux(sound.encode(second))
        file.mux(stream.encode(None))
    assert plausible_size(path) < 4 * 20 * 48_000
    with open_video(path) as video:
        assert len(video) == 30


def test_a_few_edits_of_a_short_video_are_plausible(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(grown(encoded("libx264"), (b"moov", b"trak"), edits(20, 240)))
    with open_video(path) as video:
        assert len(video) >= 6
