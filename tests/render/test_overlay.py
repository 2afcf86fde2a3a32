"""What is drawn over a video: the right pixels, legible words, and files that are whole or not there."""

import subprocess
import sys
import time

import av
import numpy as np
import psutil
import pytest
from PIL import Image

from napari_samexp.errors import StoreError, VideoError
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video
from napari_samexp.render import drawing as _drawing
from napari_samexp.render.mp4 import write_mp4
from napari_samexp.render.overlay import colour_of, contact_sheet, paint, write_overlay, write_png
from napari_samexp.types import FrameResult, ObjectScore, RunIdentity

FRAMES, HEIGHT, WIDTH = 6, 90, 120
GREY = 128


class Still:
    """A video of one plain colour."""

    fps = 5.0
    fingerprint = "still"

    def __init__(self, shape=(FRAMES, HEIGHT, WIDTH, 3), broken_at=None):
        self.shape = shape
        self.broken_at = broken_at

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        return self.frame(key)

    def frame(self, index):
        if index == self.broken_at:
            raise VideoError(f"Frame {index} is broken; copy the file again.")
        return np.full(self.shape[1:], GREY, np.uint8)


@pytest.fixture
def labels():
    """Label 1 in the left half, 300 in a square at the right, and nothing of 1 in frame 2."""
    out = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint16)
    out[:, 40:80, 10:50] = 1
    out[:, 40:80, 70:110] = 300
    out[2][out[2] == 1] = 0
    return out


@pytest.fixture
def store(tmp_path, labels):
    run = RunIdentity("video", "prior", "model", "{}")
    path = tmp_path / "labels.zarr"
    with LabelStore.create(path, shape=labels.shape, labels={1: "cat", 300: ""}, identity=run) as made:
        for index, frame in enumerate(labels[:5]):
            scores = {1: ObjectScore(-2.0 if index == 2 else 3.0, 0.5), 300: ObjectScore(4.0, 0.6)}
            made.write(FrameResult(index, frame, scores))
        yield made


def _is_near(pixel, colour, within=12):
    return np.abs(np.asarray(pixel, int) - np.asarray(colour, int)).max() <= within


def test_paint_tints_inside_outlines_the_edge_and_leaves_the_rest(labels):
    frame = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
    out = paint(frame, labels[0], alpha=0.5, line=2)
    half = (np.array(colour_of(1)) + GREY) / 2
    assert _is_near(out[60, 30], half, 1)
    assert tuple(out[41, 30]) == colour_of(1)
    assert tuple(out[60, 71]) == colour_of(300)
    assert (out[38:40, 30] < GREY).all()  # the halo
    untouched = np.ones((HEIGHT, WIDTH), bool)
    untouched[38:82, 8:52] = untouched[38:82, 68:112] = False
    assert (out[untouched] == GREY).all()
    assert (frame == GREY).all()


def test_paint_without_labels_is_a_copy():
    frame = np.full((9, 7, 3), GREY, np.uint8)
    out = paint(frame, np.zeros((9, 7), np.uint8))
    assert (out == frame).all() and out is not frame


def test_labels_that_touch_each_have_their_outline():
    labels = np.ones((20, 20), np.uint8)
    labels[:, 10:] = 2
    out = paint(np.zeros((20, 20, 3), np.uint8), labels, line=1)
    assert tuple(out[5, 9]) == colour_of(1)
    assert tuple(out[5, 10]) == colour_of(2)


def test_colours_are_fixed_and_the_first_fourteen_differ():
    assert colour_of(1) == (230, 159, 0)
    assert len({colour_of(label) for label in range(1, 15)}) == 14
    assert all(0 <= c <= 255 for c in colour_of(65_535))


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (91, 121), (1, 1), (3, 500)])
def test_the_overlay_is_h264_that_decodes_frame_by_frame(tmp_path, size):
    video = Still((FRAMES, *size, 3))
    labels = np.zeros((FRAMES, *size), np.uint8)
    write_overlay(tmp_path / "o.mp4", video, labels)
    with av.open(str(tmp_path / "o.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 5.0
        assert stream.codec_context.colorspace == 1  # BT.709
    with open_video(tmp_path / "o.mp4") as read:
        assert read.shape == (FRAMES, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["o.mp4"]


def test_the_overlay_shows_the_labels_of_each_frame(tmp_path, labels):
    write_overlay(tmp_path / "o.mp4", Still(), labels, alpha=0.5)
    half = (np.array(colour_of(1)) + GREY) / 2
    with open_video(tmp_path / "o.mp4") as read:
        assert _is_near(read.frame(1)[60, 30], half)
        assert _is_near(read.frame(2)[60, 30], (GREY,) * 3)
        assert _is_near(read.frame(1)[10, 110], (GREY,) * 3)


def test_the_overlay_of_some_frames_has_those_in_the_given_order(tmp_path, labels):
    write_overlay(tmp_path / "o.mp4", Still(), labels, frames=iter([2, 0, 5]))
    with open_video(tmp_path / "o.mp4") as read:
        assert len(read) == 3
        assert _is_near(read.frame(0)[60, 30], (GREY,) * 3)
        assert not _is_near(read.frame(1)[60, 30], (GREY,) * 3)


def test_the_legend_is_in_the_corner_only_and_changes_where_an_object_is_lost(store, tmp_path):
    video = Still()
    write_overlay(tmp_path / "o.mp4", video, store, frames=[1, 2])
    with open_video(tmp_path / "o.mp4") as read:
        there, lost = read.frame(0), read.frame(1)
    assert not _is_near(there[8, 8], (GREY,) * 3)
    assert _is_near(there[8, 100], (GREY,) * 3)
    assert np.abs(there[20:38, :60].astype(int) - lost[20:38, :60]).max() > 60


def test_a_frame_too_small_for_words_has_none():
    image = np.full((40, 200, 3), GREY, np.uint8)
    _drawing.draw_legend(image, 3, {1: "cat"}, [])
    assert (image == GREY).all()


def test_a_long_legend_is_cut_at_the_frame_and_at_half_its_height():
    image = np.full((200, 60, 3), GREY, np.uint8)
    _drawing.draw_legend(image, 3, dict.fromkeys(range(1, 40), "a name that is too long"), [2])
    assert (image[105:] == GREY).all()
    assert (image[20:90, 59] != GREY).any()


def test_labels_of_another_size_are_refused_and_nothing_is_written(tmp_path, labels):
    with pytest.raises(StoreError, match=r"\(5, 90, 120\) and the video \(6, 90, 120\)"):
        write_overlay(tmp_path / "o.mp4", Still(), labels[:5])
    with pytest.raises(StoreError, match="labels of this video"):
        contact_sheet(Still(), labels[:5])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", [VideoError, KeyboardInterrupt])
def test_what_fails_in_the_middle_leaves_the_older_file(tmp_path, failure):
    path = tmp_path / "o.mp4"
    path.write_bytes(b"older")

    def frames():
        yield np.zeros((8, 8, 3), np.uint8)
        raise failure("broken")

    with pytest.raises(failure, match="broken"):
        write_mp4(path, frames())
    assert path.read_bytes() == b"older"
    assert [entry.name for entry in tmp_path.iterdir()] == ["o.mp4"]


def test_no_frame_and_frames_of_two_sizes_are_errors(tmp_path):
    with pytest.raises(VideoError, match="no frame"):
        write_mp4(tmp_path / "o.mp4", [])
    with pytest.raises(VideoError, match="give one size"):
        write_mp4(tmp_path / "o.mp4", [np.zeros((8, n, 3), np.uint8) for n in (8, 10)])
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_a_store_error(tmp_path, labels):
    (tmp_path / "folder.mp4").mkdir()
    for path in (tmp_path / "none" / "o.mp4", tmp_path / "folder.mp4"):
        with pytest.raises(StoreError, match="write the video"):
            write_overlay(path, Still(), labels)
    with pytest.raises(StoreError, match="write the image"):
        write_png(tmp_path / "none" / "o.png", np.zeros((4, 4, 3), np.uint8))
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.mp4"]


def test_ffmpeg_without_the_encoder_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_samexp.render.mp4.ENCODER", "no-such-encoder")
    with pytest.raises(VideoError, match="libx264"):
        write_mp4(tmp_path / "o.mp4", [np.zeros((8, 8, 3), np.uint8)])


@pytest.mark.parametrize(("fps", "expected"), [(None, 10), (0.0, 10), (29.97, 29.97), (1e9, 240)])
def test_odd_frame_rates_become_ones_that_players_know(tmp_path, fps, expected):
    write_mp4(tmp_path / "o.mp4", [np.zeros((8, 8, 3), np.uint8)] * 3, fps)
    with open_video(tmp_path / "o.mp4") as read:
        assert read.fps == pytest.approx(expected, rel=1e-3)


def test_the_sheet_holds_done_frames_captions_and_marks(store):
    sheet = contact_sheet(Still(), store, columns=3)
    plain = contact_sheet(Still(), store, columns=3, frames=[0, 1, 3, 4])
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    rows = 2  # five done frames
    assert sheet.shape == (32 - 10 + rows * (156 + 24 + 10), 32 - 10 + 3 * (208 + 10), 3)
    red = (sheet[..., 0].astype(int) - sheet[..., 2] > 120) & (sheet[..., 1] < 100)
    assert red.any(), "the mark of frame 2"
    assert not ((plain[..., 0].astype(int) - plain[..., 2] > 120) & (plain[..., 1] < 100)).any()


def test_the_sheet_is_spread_over_the_frames_and_can_be_led_by_a_image(labels):
    lead = np.zeros((300, 100, 3), np.uint8)
    sheet = contact_sheet(Still(), labels, count=2, columns=9, lead=[(lead, "prior")], notes={0: "J 0.9"})
    assert sheet.shape == (32 - 10 + 190, 32 - 10 + 3 * 218, 3)
    assert (sheet[17:170, 17:60] == 0).all()
    shown = sheet[16 + 120, 16 + 218 + 30], sheet[16 + 120, 16 + 2 * 218 + 30]
    assert all(_is_near(pixel, (np.array(colour_of(1)) + GREY) / 2, 2) for pixel in shown)


def test_many_lost_names_are_cut_to_the_tile(labels):
    names = {label: f"a rather long name {label}" for label in (1, 300, 7, 8)}
    sheet = contact_sheet(Still(), labels, names=names, count=1)
    assert sheet.shape[1] == 32 - 10 + 218


def test_a_png_is_read_back_as_it_was(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_png(tmp_path / "p.png", image)
    with Image.open(tmp_path / "p.png") as read:
        assert (np.asarray(read) == image).all()


def test_frames_that_cannot_be_decoded_stop_the_overlay(tmp_path, labels):
    with pytest.raises(VideoError, match="Frame 3 is broken"):
        write_overlay(tmp_path / "o.mp4", Still(broken_at=3), labels)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file's size")
@pytest.mark.parametrize("part", [0, 0.05, 0.5, 0.95, 0.999])
def test_a_disk_that_fills_while_ffmpeg_writes_leaves_the_older_file(tmp_path, part):
    noise = np.random.default_rng(0).integers(0, 255, (20, 120, 160, 3), np.uint8)
    write_mp4(tmp_path / "o.mp4", noise)
    most = int((tmp_path / "o.mp4").stat().st_size * part)
    (tmp_path / "o.mp4").write_bytes(b"older")
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from napari_samexp.render.mp4 import write_mp4\n"
        "from napari_samexp.errors import StoreError, VideoError\n"
        "noise = np.random.default_rng(0).integers(0, 255, (20, 120, 160, 3), np.uint8)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))\n"
        "try:\n    write_mp4(sys.argv[1], noise)\n"
        "except (StoreError, VideoError) as error:\n    sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "o.mp4")], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("o.mp4", b"older")]


def test_a_writer_that_is_killed_leaves_no_process(tmp_path):
    code = (
        "import itertools, sys, numpy as np\n"
        "from napari_samexp.render.mp4 import write_mp4\n"
        "write_mp4(sys.argv[1], (np.full((120, 160, 3), n % 255, np.uint8) for n in itertools.count()))\n"
    )
    writer = psutil.Popen([sys.executable, "-c", code, str(tmp_path / "o.mp4")])
    try:
        end = time.monotonic() + 60
        while not (helpers := writer.children(recursive=True)) and time.monotonic() < end:
            time.sleep(0.05)
        assert helpers, "FFmpeg was never begun"
    finally:
        writer.kill()
        writer.wait()
    _, alive = psutil.wait_procs(helpers, timeout=60)
    assert not alive
    assert not (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize("count", [1, 2, 3, 61, 250])
@pytest.mark.parametrize("fps", [10, 24000 / 1001, 240, 0.1])
def test_there_are_exactly_the_frames_at_exactly_their_times(tmp_path, count, fps):
    write_mp4(tmp_path / "o.mp4", (np.full((8, 8, 3), n, np.uint8) for n in range(count)), fps)
    with open_video(tmp_path / "o.mp4") as read:
        assert len(read) == count
        np.testing.assert_allclose(read.times, np.arange(count) / fps, rtol=1e-3, atol=1e-3)
        assert np.abs(read.frame(count - 1).astype(int) - (count - 1)).max() <= 4
