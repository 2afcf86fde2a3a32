import logging
import os
import random
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_samexp.errors import ImageError, SamexpError, VideoError
from napari_samexp.io import _stack
from napari_samexp.io import video as video_module
from napari_samexp.io._av import AvSource
from napari_samexp.io._av_file import AvFile
from napari_samexp.io._cache import FrameCache
from napari_samexp.io._packets import FrameTable, PacketList
from napari_samexp.io._stack import StackSource, tiff_stack
from napari_samexp.io.video import (
    FrameIndexError,
    FrameNotWanted,
    LazyVideo,
    TooManyFramesError,
    open_video,
    read_frame,
)
from napari_samexp.measure.masks import open_masks
from napari_samexp.types import VideoSource

BITS = 8
HEIGHT, WIDTH = 64, 96


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """An image that says its own number in a row of dark and bright blocks, lossy coding or not."""
    image = np.full((height, width, 3), (40, 90, 120), np.uint8)
    image[height // 2 :, :, 1] = (np.arange(width) + 2 * number) % 200
    for bit in range(BITS):
        image[:16, bit * 8 : bit * 8 + 8] = 235 if number >> bit & 1 else 20
    return image


def number_in(image: np.ndarray) -> int:
    return sum(int(image[4:12, bit * 8 + 2 : bit * 8 + 6].mean() > 127) << bit for bit in range(BITS))


def encode(
    path: Path,
    codec: str,
    options: dict[str, str] | None = None,
    *,
    count: int = 60,
    pixels: str = "yuv420p",
    size: tuple[int, int] = (HEIGHT, WIDTH),
    milliseconds: Sequence[int] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w", options=container or {}) as file:
        stream: Any = file.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        unit = Fraction(1, 25) if milliseconds is None else Fraction(1, 1000)
        stream.codec_context.time_base = unit
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24").reformat(
                format=pixels
            )
            frame.pts = number if milliseconds is None else milliseconds[number]
            frame.time_base = unit
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def decode(path: Path) -> list[np.ndarray]:
    """All frames in order, by a plain decode on one thread."""
    with av.open(str(path)) as file:
        file.streams.video[0].thread_type = "NONE"
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


H264 = {"g": "250", "bf": "3", "x264-params": "scenecut=0:b-adapt=0"}
CLIPS: dict[str, tuple[str, dict[str, str], str]] = {
    "long_gop.mp4": ("libx264", H264, "yuv420p"),
    "short_gop.mov": ("libx264", {**H264, "g": "7"}, "yuv420p"),
    "open_gop.mkv": ("libx264", {"x264-params": "open-gop=1:keyint=10:bframes=3:b-adapt=0"}, "yuv420p"),
    "hevc_open_gop.mp4": (
        "libx265",
        {"preset": "ultrafast", "x265-params": "open-gop=1:keyint=10:bframes=3:log-level=none"},
        "yuv420p",
    ),
    "healing.mkv": (
        "libx264",
        {"x264-params": "intra-refresh=1:keyint=20:bframes=0:scenecut=0"},
        "yuv420p",
    ),
    "b_frames.avi": ("mpeg4", {"bf": "2", "g": "12"}, "yuv420p"),
    "divided.mkv": ("mpeg2video", {"bf": "2", "g": "12"}, "yuv420p"),
    "vp8.webm": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "30"}, "yuv420p"),
    "vp9.webm": ("libvpx-vp9", {"lag-in-frames": "8", "g": "30", "cpu-used": "8"}, "yuv420p"),
    "stills.avi": ("mjpeg", {}, "yuvj420p"),
    "ten_bit.mov": ("prores_ks", {}, "yuv422p10le"),
    "bare.h264": ("libx264", H264, "yuv420p"),
    "stream.ts": ("libx264", {**H264, "g": "20"}, "yuv420p"),
    "animation.gif": ("gif", {}, "rgb8"),
}


class Clips:
    """Videos, each made when a test first asks for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._frames: dict[str, list[np.ndarray]] = {}

    def path(self, name: str) -> Path:
        codec, options, pixels = CLIPS[name]
        path = self._folder / name
        return path if path.exists() else encode(path, codec, options, pixels=pixels)

    def frames(self, name: str) -> list[np.ndarray]:
        if name not in self._frames:
            self._frames[name] = decode(self.path(name))
        return self._frames[name]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    return Clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The packets that decoding was begun at."""
    begun: list[int] = []
    frames = AvFile.frames

    def counted(self: AvFile, packets: Any, start: int, sought: Iterator[int]) -> Any:
        begun.append(start)
        return frames(self, packets, start, sought)

    monkeypatch.setattr(AvFile, "frames", counted)
    return begun


# Exactness


@pytest.mark.parametrize("cache_bytes", [0, 100_000, 2**28])
@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_exact_in_any_order(clips: Clips, name: str, cache_bytes: int) -> None:
    expected = clips.frames(name)
    rng = random.Random(name)
    count = len(expected)
    forward, jumps = range(count), [rng.randrange(count) for _ in range(30)]
    around = [min(max(40 + rng.randrange(-6, 7), 0), count - 1) for _ in range(15)]
    with open_video(clips.path(name), cache_bytes=cache_bytes) as video:
        assert video.shape == (60, HEIGHT, WIDTH, 3) == (count, HEIGHT, WIDTH, 3)
        assert video.fps == pytest.approx(25, abs=1e-6)
        for index in [*jumps, *forward, *reversed(forward), *around]:
            frame = video.frame(index)
            assert number_in(frame) == index
            np.testing.assert_array_equal(frame, expected[index])


def test_uneven_times_and_a_late_start(tmp_path: Path) -> None:
    rng = random.Random(3)
    times = np.cumsum([1370, *(rng.choice([10, 33, 40, 120]) for _ in range(59))]).tolist()
    options = {**H264, "x264-params": "open-gop=1:keyint=12:bframes=3"}
    for suffix in ("mp4", "mkv"):
        path = encode(tmp_path / f"a.{suffix}", "libx264", options, milliseconds=times)
        with open_video(path) as video:
            np.testing.assert_allclose(video.times, (np.array(times) - times[0]) / 1000, atol=1e-3)
            assert video.times.dtype == np.float64
            assert video.fps == pytest.approx(59000 / (times[-1] - times[0]), rel=0.02)
            for index in (59, 0, 30, 29, 58, 13, 12, 11):
                assert number_in(video[index]) == index


def remux(source: Path, path: Path, start: int) -> Path:
    """Copy the packets from packet `start` on."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for place, packet in enumerate(old.demux(video=0)):
            if place >= start and packet.size:
                packet.stream = stream
                new.mux(packet)
    return path


def test_frames_that_a_cut_left_without_references_do_not_count(
    clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = clips.path("hevc_open_gop.mp4")
    with av.open(str(source)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    key = [place for place, packet in enumerate(packets) if packet.is_keyframe][1]
    first_shown = sorted(packet.pts for packet in packets).index(packets[key].pts)
    assert first_shown > key  # some frames stored after this key frame are shown before it

    with caplog.at_level(logging.WARNING), open_video(remux(source, tmp_path / "cut.mkv", key)) as video:
        assert [number_in(frame) for frame in video] == list(range(first_shown, 60))
        assert number_in(video[-1]) == 59
        assert video.times[0] == 0
    assert "left out" in caplog.text


def test_hidden_frames_do_not_count(clips: Clips, tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    with av.open(str(clips.path("vp8.webm"))) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for place, packet in enumerate(old.demux(video=0)):
            data = bytearray(bytes(packet))
            if place == 17:  # as encoders write images that only others are made from
                data[0] &= ~0x10
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            if packet.size:
                new.mux(copy)
    with open_video(path) as video:
        assert [number_in(frame) for frame in video] == [*range(17), *range(18, 60)]


def test_edit_list_is_followed(clips: Clips, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    data = bytearray(clips.path("long_gop.mp4").read_bytes())
    # version 0 of an edit list with one entry: its length, and where in the media it begins
    place = data.index(b"elst") + 12
    length, begin = struct.unpack(">Ii", data[place : place + 8])
    with av.open(str(clips.path("long_gop.mp4"))) as file:
        per_frame = int(1 / 25 / file.streams.video[0].time_base)
    data[place : place + 8] = struct.pack(">Ii", length, begin + 21 * per_frame)
    path.write_bytes(data)
    with open_video(path, cache_bytes=0) as video:
        assert len(video) == len(decode(path)) < 60
        assert [number_in(video[index]) for index in (0, 30, 5, -1)] == [21, 51, 26, 59]


@pytest.mark.parametrize("threads", ["AUTO", "SLICE"])
def test_a_search_right_after_the_end(clips: Clips, threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    init = AvFile.__init__
    monkeypatch.setattr(AvFile, "__init__", lambda self, path, _: init(self, path, threads))
    expected = clips.frames("short_gop.mov")
    with open_video(clips.path("short_gop.mov"), cache_bytes=0) as video:
        for index in (59, 0, 59, 58, 59, 3, 57):
            np.testing.assert_array_equal(video.frame(index), expected[index])


# Searching and keeping


def test_stepping_forward_does_not_search(clips: Clips, searches: list[int]) -> None:
    with open_video(clips.path("long_gop.mp4"), cache_bytes=0) as video:
        for index in range(60):
            video.frame(index)
    assert searches == [0]


def test_a_jump_ahead_goes_to_the_nearest_key_frame(clips: Clips, searches: list[int]) -> None:
    with open_video(clips.path("short_gop.mov"), cache_bytes=0) as video:
        video.frame(50)
    assert searches == [0, 49]


def test_stepping_back_reads_frames_kept_on_the_way(clips: Clips, searches: list[int]) -> None:
    with open_video(clips.path("long_gop.mp4")) as video:
        for index in range(59, -1, -1):
            assert number_in(video.frame(index)) == index
    assert searches == [0]


def test_a_decoder_that_knows_no_setting_for_bad_texts_opens_files_too(
    clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = av.open

    def newer(file: str, mode: str, *, options: dict[str, str]) -> Any:
        return given(file, mode, options=options)

    path = clips.path("long_gop.mp4")
    monkeypatch.setattr(av, "open", newer)
    with open_video(path) as video:
        assert number_in(video.frame(7)) == 7


def test_frames_on_the_way_are_shown_to_who_asks(clips: Clips) -> None:
    passed: dict[int, int] = {}
    with open_video(clips.path("long_gop.mp4")) as video:

        def on_way(index: int, image: Any) -> bool:
            passed[index] = number_in(image())
            return True

        assert number_in(video.frame(30, on_way=on_way)) == 30
        video.frame(12, on_way=on_way)
    assert passed == {index: index for index in range(30)}  # and frame 12 was kept on the way


def test_a_frame_can_be_given_up_on_the_way(clips: Clips) -> None:
    with open_video(clips.path("long_gop.mp4"), cache_bytes=0) as video:
        for index in (40, 8, 55):
            with pytest.raises(FrameNotWanted):
                video.frame(index, on_way=lambda passed, image: passed % 5 != 4)
            assert [number_in(video.frame(near)) for near in (index, index + 1, index - 2)] == [
                index,
                index + 1,
                index - 2,
            ]


def test_kept_frames_stay_within_the_limit(clips: Clips) -> None:
    limit = 100_000
    source = AvSource(clips.path("long_gop.mp4"), cache_bytes=limit, limits=None)
    for index in (40, 3, 59, *range(60)):
        source.frame(index)
        assert 0 < len(source._cache) * HEIGHT * WIDTH * 3 // 2 <= source._cache.used_bytes <= limit
    source.close()
    assert source._cache.used_bytes == 0


def test_cache_drops_what_was_not_asked_for_longest() -> None:
    cache: FrameCache[str] = FrameCache(30)
    for index in range(3):
        cache.put(index, f"frame {index}", 10)
    assert cache.get(0) == "frame 0"
    cache.put(3, "frame 3", 10)
    assert [index in cache for index in range(4)] == [True, False, True, True]
    cache.put(4, "too large", 31)
    cache.put(0, "again", 20)
    assert (len(cache), cache.used_bytes, cache.get(4), cache.get(0)) == (2, 30, None, "again")
    cache.clear()
    assert (len(cache), cache.used_bytes) == (0, 0)


def test_a_file_that_cannot_be_searched_is_read_from_the_start(clips: Clips, monkeypatch: Any) -> None:
    with open_video(clips.path("short_gop.mov"), cache_bytes=0) as video:
        monkeypatch.setitem(video._source._table.packets.__dict__, "key_places", {})
        assert number_in(video.frame(50)) == 50
        assert number_in(video.frame(2)) == 2


def test_a_file_that_changes_while_open_is_an_error(clips: Clips) -> None:
    with open_video(clips.path("short_gop.mov"), cache_bytes=0) as video:
        video._source._table.packets.pts[30] += 1
        assert number_in(video.frame(10)) == 10
        with pytest.raises(VideoError, match=r"Frame 33 of short_gop\.mov"):
            video.frame(33)


def test_a_search_that_lands_too_late_is_repeated(clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        FrameTable, "seek_times", lambda self, _: (int(self.packets.pts[key]) for key in self.keys[::-1])
    )
    with open_video(clips.path("short_gop.mov"), cache_bytes=0) as video:
        assert [number_in(video.frame(index)) for index in (59, 20, 2, 44)] == [59, 20, 2, 44]


def test_decoding_does_not_begin_where_the_image_only_heals(clips: Clips, searches: list[int]) -> None:
    with open_video(clips.path("healing.mkv"), cache_bytes=0) as video:
        video.frame(50)
        assert searches == [0, 40, 20, 0]
        video.frame(45)
        assert searches == [0, 40, 20, 0, 0]  # and is not tried again


class Packet(NamedTuple):
    """What a table needs to know of a packet."""

    pts: int | None
    is_keyframe: bool = False
    dts: int | None = None
    size: int = 5
    is_discard: bool = False
    is_corrupt: bool = False


def test_table_of_an_open_gop_with_an_edit_list() -> None:
    stored = [Packet(0, True, is_discard=True), Packet(20), Packet(10, is_corrupt=True)]
    stored += [Packet(50, True), Packet(30), Packet(40), Packet(70), Packet(60)]
    packets = PacketList.of(stored, "h264")
    table = FrameTable.by_time(packets)
    assert not packets.in_doubt
    assert table.order.tolist() == [1, 4, 5, 3, 7, 6]
    # what is stored after the key frame at 50 but shown before it needs the key frame before
    assert [table.start_for(frame) for frame in range(6)] == [0, 0, 0, 3, 3, 3]
    assert table.start_for(3, before=3) == 0
    assert table.start_for(3, before=0) is None
    assert list(table.seek_times(3)) == [50, 0]
    np.testing.assert_allclose(table.times(0.1, None), [0, 1, 2, 3, 4, 5])


def test_table_of_packets_without_times() -> None:
    stored = [Packet(None, True, dts=0), Packet(None, dts=1), Packet(None, True, dts=2), Packet(None, dts=3)]
    packets = PacketList.of(stored, "h264")
    assert packets.in_doubt
    table = FrameTable.by_decoding(packets, [0, 2, 1, 2])
    assert table.order.tolist() == [0, 2, 1]
    assert table.keys.tolist() == [0]
    assert table.times(0.5, None).tolist() == [0, 0.5, 1]
    timeless = FrameTable.by_decoding(PacketList.of([Packet(None)] * 3, "h264"), range(3))
    assert timeless.times(1, 2).tolist() == [0, 0.5, 1]
    assert PacketList.of([Packet(1, True), Packet(1)], "h264").in_doubt
    assert not PacketList.of([], "h264").shown.any()


def test_gif_frames_need_all_before_them() -> None:
    assert PacketList.of([Packet(0, True), Packet(1, True)], "gif").keys.tolist() == [True, False]


def test_several_threads_read_at_once(clips: Clips) -> None:
    expected = clips.frames("open_gop.mkv")
    order = [random.Random(5).randrange(60) for _ in range(120)]
    with open_video(clips.path("open_gop.mkv"), cache_bytes=100_000) as video, ThreadPoolExecutor(4) as pool:
        for index, frame in zip(order, pool.map(video.frame, order)):
            np.testing.assert_array_equal(frame, expected[index])


# What the image looks like


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
    ],
    ids=[
        "as it is",
        "clockwise",
        "half",
        "anticlockwise",
        "mirrored",
        "flipped",
        "transposed",
        "transversed",
    ],
)
def test_the_image_is_upright(clips: Clips, tmp_path: Path, matrix: tuple[int, ...], turn: Any) -> None:
    data = bytearray(clips.path("short_gop.mov").read_bytes())
    place = data.index(b"tkhd") + 44  # ISO 14496-12, track header version 0
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mov").write_bytes(data)
    with open_video(tmp_path / "a.mov") as video:
        expected = turn(clips.frames("short_gop.mov")[20])
        assert video.shape[1:] == expected.shape
        np.testing.assert_array_equal(video[20], expected)


@pytest.mark.parametrize("pixels", ["gray", "yuva420p", "yuv444p", "bgr0", "gray16le", "yuv420p10le"])
def test_any_pixels_become_rgb(tmp_path: Path, pixels: str) -> None:
    path = encode(tmp_path / "a.mkv", "ffv1", pixels=pixels, count=3, size=(61, 95))
    with open_video(path) as video:
        assert video.shape == (3, 61, 95, 3)
        np.testing.assert_array_equal(video[:], decode(path))
        assert number_in(video[2]) == 2


def test_transparent_gif_frames_lie_over_each_other(tmp_path: Path) -> None:
    images = []
    for number in range(6):
        image = Image.new("P", (40, 40), 0)
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
        image.paste(1 + number % 3, (number * 6, 5, number * 6 + 5, 15))
        images.append(image)
    path = tmp_path / "a.gif"
    images[0].save(path, save_all=True, append_images=images[1:], transparency=0, disposal=1, duration=50)
    expected = decode(path)
    with open_video(path, cache_bytes=0) as video:
        for index in (5, 2, 4, 0, 5):
            np.testing.assert_array_equal(video[index], expected[index])
        assert video[5].any(axis=2).sum() > 5 * 50


def test_limits_stretch_a_file_too(clips: Clips) -> None:
    with open_video(clips.path("stills.avi"), limits=(100, 101)) as video:
        assert set(np.unique(video[3])) == {0, 255}


# Damage


@pytest.mark.parametrize("name", ["long_gop.mp4", "open_gop.mkv", "vp8.webm", "b_frames.avi", "stream.ts"])
def test_a_file_cut_short_gives_its_frames(clips: Clips, tmp_path: Path, name: str) -> None:
    source = clips.path(name)
    if name.endswith("mp4"):  # with its index in front, else nothing can be read
        codec, options, _ = CLIPS[name]
        source = encode(tmp_path / "whole.mp4", codec, options, container={"movflags": "faststart"})
    path = tmp_path / name
    data = source.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    whole = decode(source)
    with open_video(path, cache_bytes=0) as video:
        assert 5 < len(video) < 60
        numbers = [number_in(frame) for frame in video]
        assert numbers == sorted(set(numbers))
        for index in (len(video) - 2, 0, len(video) // 2):
            np.testing.assert_array_equal(video[index], whole[numbers[index]])


def test_a_damaged_frame_is_named_and_the_others_can_be_read(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", "png", count=12, pixels="rgb24")
    with av.open(str(path)) as file:
        packet = [packet for packet in file.demux(video=0) if packet.size][7]
        place, size = packet.pos + 60, packet.size - 80
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    with open_video(path) as video:
        assert len(video) == 12
        for _ in range(2):
            with pytest.raises(VideoError, match=r"Frame 7 of a\.avi cannot be decoded"):
                video.frame(7)
            assert [number_in(video[index]) for index in (8, 6, 11, 0)] == [8, 6, 11, 0]


def test_damage_at_the_end_takes_no_whole_frames_along(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", "libx264", H264)
    whole = decode(path)
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
        place, size = packets[-1].pos, packets[-1].size
        lost = sorted(packet.pts for packet in packets).index(packets[-1].pts)
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    with open_video(path, cache_bytes=0) as video:
        assert len(video) == 60
        for index in (59, *(index for index in range(50, 60) if index != lost)):
            np.testing.assert_array_equal(video.frame(index), whole[index])


def test_noise_in_a_file_gives_frames_or_one_sentence(clips: Clips, tmp_path: Path) -> None:
    rng = random.Random(11)
    for name in ("long_gop.mp4", "open_gop.mkv", "b_frames.avi", "vp8.webm", "animation.gif") * 4:
        data = bytearray(clips.path(name).read_bytes())
        for _ in range(6):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path = tmp_path / name
        path.write_bytes(data)
        try:
            with open_video(path) as video:
                for index in (len(video) - 1, 0, len(video) // 2):
                    assert video.frame(index).shape == video.shape[1:]
        except VideoError as error:
            assert "\n" not in str(error)


def test_no_frame_at_all_gives_one_sentence(clips: Clips, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", "png", count=4, pixels="rgb24")
    with av.open(str(path)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for place, size in packets:
        data[place + 60 : place + size - 20] = bytes(size - 80)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"a\.avi has no frame that can be decoded"):
        open_video(path)

    with av.open(str(clips.path("open_gop.mkv"))) as file:
        first = next(packet.pos for packet in file.demux(video=0))
    path = tmp_path / "head.mkv"
    path.write_bytes(clips.path("open_gop.mkv").read_bytes()[:first])
    with pytest.raises(VideoError, match=r"head\.mkv (has no frame|cannot be opened)"):
        open_video(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe.mp4"
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        with pytest.raises(VideoError, match="not an ordinary file"):
            open_video(path)


def test_a_file_that_goes_while_it_is_searched(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mov"
    path.write_bytes(clips.path("short_gop.mov").read_bytes())
    with open_video(path, cache_bytes=0) as video:
        monkeypatch.setitem(video._source._table.packets.__dict__, "key_places", {})
        aside = path.rename(tmp_path / "b.mov")
        for _ in range(2):
            with pytest.raises(VideoError, match=r"a\.mov cannot be opened"):
                video.frame(50)
        aside.rename(path)
        assert number_in(video.frame(50)) == 50


def test_a_change_of_size_is_named(tmp_path: Path) -> None:
    first = encode(tmp_path / "a.h264", "libx264", H264, count=5)
    second = encode(tmp_path / "b.h264", "libx264", H264, count=5, size=(48, 64))
    path = tmp_path / "both.h264"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    with open_video(path) as video:
        assert len(video) == 10
        assert number_in(video[4]) == 4
        with pytest.raises(
            VideoError, match=r"Frame 7 of both\.h264 is 64 wide and 48 high, but the first is 96"
        ):
            video.frame(7)


def make_bad(folder: Path, name: str) -> Path:
    path = folder / name
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"this is no video\n" * 500,
        "notes.txt": b"this is no video\n" * 500,
        "subtitles.mp4": b"1\n00:00:01,000 --> 00:00:02,000\nhello\n\n" * 9,
        "list.m3u8": b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "script.mp4": b"ffconcat version 1.0\nfile other.mp4\n",
        "noise.mkv": random.Random(1).randbytes(50_000),
    }
    if name == "sound.mp4":
        with av.open(str(path), "w") as file:
            stream: Any = file.add_stream("aac", rate=44100)
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            frame.rate = 44100
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    elif name == "no_index.mp4":
        data = encode(path, "libx264", H264, count=9).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif name == "folder":
        path.mkdir()
    elif name == "texts":
        path.mkdir()
        (path / "notes.txt").write_text("hello")
    elif name in contents:
        path.write_bytes(contents[name])
    return path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.mp4", "does not exist"),
        ("empty.mp4", "is empty"),
        ("text.mp4", "cannot be opened as a video"),
        ("notes.txt", "cannot be opened as a video"),
        ("subtitles.mp4", "cannot be opened as a video"),
        ("list.m3u8", "cannot be opened as a video"),
        ("script.mp4", "cannot be opened as a video"),
        ("noise.mkv", "cannot be opened as a video|no frame"),
        ("no_index.mp4", "cannot be opened as a video"),
        ("sound.mp4", "has no video, only audio"),
        ("folder", r"no images \(it has no files\)"),
        ("texts", r"no images \(other files: 1, such as notes\.txt\)"),
    ],
)
def test_what_is_no_video_gives_one_sentence(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(VideoError, match=says) as caught:
        open_video(make_bad(tmp_path, name))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        (None, {}, "NoneType is not a video"),
        ([1, 2], {}, "list is not a video"),
        (np.zeros((4, 5)), {}, "shape"),
        (np.zeros((40, 50, 3)), {}, "one image"),
        (np.zeros((2, 4, 5, 2)), {}, "C of 1, 3 or 4"),
        (np.zeros((0, 4, 5)), {}, "is empty"),
        (np.zeros((2, 4, 5), complex), {}, "type complex128"),
        (np.zeros((2, 4, 5)), {"cache_bytes": -1}, "cache_bytes"),
        (np.zeros((2, 4, 5)), {"cache_bytes": 1.5}, "cache_bytes"),
        (np.zeros((2, 4, 5)), {"limits": 3}, "limits"),
        (np.zeros((2, 4, 5)), {"limits": (5, 5)}, "lower number"),
        (np.full((2, 4, 5), np.nan), {}, "no finite value"),
    ],
)
def test_bad_arguments_give_one_sentence(source: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(VideoError, match=says):
        open_video(source, **options).frame(0)


def test_a_closed_video_says_so(clips: Clips) -> None:
    for source in (clips.path("stills.avi"), np.zeros((2, 4, 5), np.uint8)):
        with open_video(source) as video:
            assert len(video.fingerprint) == 64
        video.close()
        with pytest.raises(VideoError, match="was closed"):
            video.frame(0)
        with pytest.raises(VideoError, match="was closed"):
            _ = video.fingerprint


# As an array

FULL = np.random.default_rng(0).integers(0, 256, (7, 12, 15, 3), np.uint8)


@pytest.mark.parametrize(
    "key",
    [
        3,
        -1,
        np.int64(2),
        np.array(4),
        slice(2, 3),
        (slice(2, 3), slice(None), slice(None)),
        (slice(np.int64(2), np.int64(3)), slice(None), slice(None), slice(None)),
        slice(None),
        slice(None, None, -2),
        slice(5, 2),
        (slice(5, 2), 3),
        ...,
        (..., 0),
        (1, ..., 2),
        (),
        (1, 2, 3, 0),
        (1, slice(2, 5), slice(None, None, 3)),
        (slice(1, 2), 3, slice(None), 0),
        (slice(1, 4), 3, slice(None), 0),
        [0, 5, -1],
        [],
        np.array([2, 2, 1], np.uint8),
        FULL[:, 0, 0, 0] > 99,
        ([1, 3], slice(2, 5), slice(None), 1),
        (slice(0, 2), [1, 4]),
        (2, [1, 4], [0, 3]),
        (2, FULL[2, :, :, 0] > 99),
    ],
    ids=str,
)
def test_indexing_is_as_numpy_does_it(key: Any) -> None:
    got, expected = open_video(FULL)[key], FULL[key]
    assert np.shape(got) == np.shape(expected)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "key",
    [7, -8, 1.5, "1", None, (0, 12), (0, 0, 0, 0, 0), (..., ...), [7], [0.5], [True, False], [[0, 1]],
     slice("a", None), slice(None, None, 0), ([0, 1], [0, 1]), (None, 0)],
    ids=str,
)  # fmt: skip
def test_bad_indices_are_video_errors_and_index_errors(key: Any) -> None:
    with pytest.raises(FrameIndexError) as caught:
        _ = open_video(FULL)[key]
    assert isinstance(caught.value, VideoError)
    assert isinstance(caught.value, IndexError)


def test_what_napari_asks_of_an_array(clips: Clips) -> None:
    video = open_video(clips.path("stills.avi"))
    assert isinstance(video, VideoSource)
    assert (video.dtype, video.ndim, len(video)) == (np.uint8, 4, 60)
    assert video.size == video.nbytes == 60 * HEIGHT * WIDTH * 3
    assert video.name == "stills.avi"
    assert video.times.shape == (60,)
    frame = video[30:31, :, :]
    assert frame.shape == (1, HEIGHT, WIDTH, 3)
    assert (frame.dtype, type(frame)) == (np.uint8, np.ndarray)
    np.testing.assert_array_equal(np.asarray(video)[30], frame[0])
    assert np.asarray(video, np.float32).dtype == np.float32
    assert sum(1 for _ in video) == 60
    assert "60 frames, 96 wide and 64 high, 25 frames a second" in repr(video)
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":  # before, there was no such argument
        with pytest.raises(ValueError, match="copy=False"):
            np.asarray(video, copy=False)


def test_frames_belong_to_the_caller(clips: Clips) -> None:
    for source in (clips.path("stills.avi"), FULL.copy(), zarr.array(FULL, chunks=(1, 12, 15, 3))):
        video = open_video(source)
        expected = video.frame(1)
        for _ in range(2):
            frame = video.frame(1)
            np.testing.assert_array_equal(frame, expected)
            frame[:] = 0


def test_too_many_frames_are_refused(clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = open_video(np.broadcast_to(np.uint8(9), (5000, 720, 1280)))
    for ask in (lambda: huge[:], lambda: np.asarray(huge), lambda: huge[:, 3, 4], lambda: huge[range(1000)]):
        with pytest.raises((TooManyFramesError, FrameIndexError)):
            ask()
    with pytest.raises(MemoryError, match="frame by frame"):
        huge[:, :, :]
    assert huge[4999:].shape == (1, 720, 1280, 3)

    monkeypatch.setattr(video_module, "MAX_REQUEST_BYTES", 10 * HEIGHT * WIDTH * 3)
    with open_video(clips.path("stills.avi")) as video:
        assert video[:10].shape[0] == 10
        with pytest.raises(VideoError, match=r"11 frames of stills\.avi"):
            video[:11]


# Arrays


class Ducks:
    """An array of which only a shape, a type and [] are known, as dask's is."""

    def __init__(self, values: np.ndarray) -> None:
        self.shape, self.dtype, self._values, self.reads = values.shape, values.dtype, values, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        self.reads += 1
        return self._values[key]


def test_arrays_of_any_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FULL)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    for array in (FULL, mapped, zarr.array(FULL, chunks=(1, 12, 15, 3)), Ducks(FULL)):
        video = open_video(array)
        np.testing.assert_array_equal(np.asarray(video), FULL)
        assert (video.fps, video.name) == (None, "array")
        np.testing.assert_array_equal(video.times, np.arange(7.0))
        assert video.fingerprint == open_video(FULL).fingerprint
    assert open_video(video) is video


@pytest.mark.parametrize("values", [FULL[..., 0], FULL[..., :1], np.concatenate([FULL, FULL[..., :1]], -1)])
def test_grey_and_alpha(values: np.ndarray) -> None:
    expected = FULL if values.shape[-1] == 4 else np.repeat(FULL[..., :1], 3, -1)
    np.testing.assert_array_equal(np.asarray(open_video(values)), expected)


def test_a_lazy_array_is_read_once_a_frame() -> None:
    ducks = Ducks(FULL)
    video = open_video(ducks)
    assert ducks.reads == 1
    for _ in range(3):
        video.frame(4)
    assert ducks.reads == 2
    ducks = Ducks(FULL)
    video = open_video(ducks, cache_bytes=0)
    for _ in range(3):
        video.frame(4)
    assert ducks.reads == 4


def test_an_array_that_fails_gives_one_sentence() -> None:
    class Failing(Ducks):
        def __getitem__(self, key: Any) -> np.ndarray:
            if key == 3:
                raise RuntimeError("the disk is gone")
            if key == 4:
                return np.zeros((3, 3, 3), np.uint8)
            return super().__getitem__(key) if key != 5 else np.zeros((12, 15, 3), np.uint16)

    video = open_video(Failing(FULL))
    for index, says in ((3, "the disk is gone"), (4, "is 3 wide and 3 high"), (5, "has type uint16")):
        with pytest.raises(VideoError, match=f"Frame {index} of the array.*{says}"):
            video.frame(index)


def test_brightness_does_not_flicker() -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(100, 3000, (20, 30, 40)).astype(np.uint16)
    values[:, 0, 0] = 1500
    values[9, 5:20] = 60000
    video = open_video(values)
    greys = {int(frame[0, 0, 0]) for frame in video}
    assert len(greys) == 1
    assert 0 < greys.pop() < 255
    stretched = open_video(values, limits=(1499, 1501))
    assert {tuple(frame[0, 0]) for frame in stretched} == {(128, 128, 128)}


def test_bool_and_float_arrays() -> None:
    mask = FULL[..., 0] > 127
    np.testing.assert_array_equal(np.asarray(open_video(mask))[..., 2], mask * np.uint8(255))
    np.testing.assert_array_equal(np.asarray(open_video(FULL / 255.0)), FULL)


# Folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.mkdir()
    for number in (1, 2, 3, 10, 11):
        Image.fromarray(numbered(number)).save(path / f"Frame {number}.{'PNG' if number % 2 else 'bmp'}")
    (path / "notes.txt").write_text("hello")
    (path / "._Frame 4.png").write_bytes(b"made by a system")
    (path / "sub.png").mkdir()
    return path


def test_a_folder_is_read_in_the_order_of_counting(folder: Path) -> None:
    with open_video(str(folder)) as video:
        assert video.shape == (5, HEIGHT, WIDTH, 3)
        assert [number_in(frame) for frame in video] == [1, 2, 3, 10, 11]
        np.testing.assert_array_equal(video[3], numbered(10))
        assert (video.name, video.fps) == ("images", None)


def test_another_size_in_a_folder_is_named(folder: Path) -> None:
    Image.fromarray(numbered(0, 50, 96)).save(folder / "Frame 7.png")
    with pytest.raises(
        VideoError, match=r"Frame 7\.png is 96 wide and 50 high, but Frame 1\.PNG is 96 wide and 64"
    ):
        open_video(folder)


def test_another_type_in_a_folder_is_named(folder: Path) -> None:
    Image.fromarray(numbered(0)[..., 0].astype(np.uint16)).save(folder / "Frame 7.png")
    video = open_video(folder)
    with pytest.raises(VideoError, match=r"Frame 7\.png has type uint16"):
        video.frame(3)


def test_a_folder_is_read_lazily_and_names_what_is_broken(folder: Path) -> None:
    whole = (folder / "Frame 3.PNG").read_bytes()
    (folder / "Frame 3.PNG").write_bytes(whole[: len(whole) // 2])
    video = open_video(folder)
    assert number_in(video.frame(3)) == 10
    with pytest.raises(VideoError, match=r"Frame 3\.PNG is broken"):
        video.frame(2)
    (folder / "Frame 3.PNG").write_bytes(b"nothing")
    with pytest.raises(VideoError, match=r"Frame 3\.PNG is not an image"):
        open_video(folder)


def test_links_in_a_folder_are_followed_to_ordinary_files(folder: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    for place in folder.iterdir():
        (links / place.name).symlink_to(place)
    assert [number_in(frame) for frame in open_video(links)] == [1, 2, 3, 10, 11]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
@pytest.mark.parametrize(
    "kind", ["pipe", "link to a pipe", "link to a device", "link in a circle", "link to nothing"]
)
def test_what_is_no_ordinary_file_in_a_folder_is_named_and_not_opened(folder: Path, kind: str) -> None:
    odd = folder / "Frame 4.png"
    os.mkfifo(folder / "pipe")
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to(
            {"pipe": folder / "pipe", "device": Path("/dev/zero"), "circle": odd}.get(
                kind.split()[-1], "nothing"
            )
        )
    for read in (open_video, lambda path: open_masks(path).__enter__()):
        with pytest.raises(SamexpError, match=r"Frame 4\.png is not an ordinary file"):
            read(folder)


@pytest.mark.skipif(os.name == "nt", reason="the link would be followed by the test itself")
def test_a_link_to_another_computer_is_named_before_it_is_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "Frame 4.png").symlink_to("\\\\host\\share\\a.png")
    monkeypatch.setattr("napari_samexp.io.elsewhere.WINDOWS", True)
    with pytest.raises(VideoError, match=r"Frame 4\.png is a link to another computer"):
        open_video(folder)


def test_one_image_is_a_video_of_one_frame(folder: Path) -> None:
    assert number_in(open_video(folder / "Frame 10.bmp")[0]) == 10


def test_home_is_filled_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert len(open_video("~/images")) == 5


# TIFF


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"imagej": True},
        {"bigtiff": True, "byteorder": ">"},
        {"metadata": None},
        {"ome": True, "metadata": {"axes": "TYX"}},
    ],
    ids=str,
)
def test_tiff_stacks(tmp_path: Path, options: dict[str, Any]) -> None:
    values = np.random.default_rng(4).integers(0, 60000, (6, 20, 30)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    with open_video(tmp_path / "a.tif", limits=(0, 65535)) as video:
        expected = np.repeat((values / 257).round().astype(np.uint8)[..., None], 3, -1)
        assert video.shape == (6, 20, 30, 3)
        np.testing.assert_allclose(np.asarray(video).astype(int), expected, atol=1)
        assert video.fps is None


@pytest.mark.parametrize(
    ("stored", "options"),
    [
        (FULL, {"photometric": "rgb"}),
        (FULL, {"photometric": "rgb", "compression": "zlib"}),
        (FULL, {"photometric": "minisblack", "compression": "zlib"}),
        (np.moveaxis(FULL, -1, 1), {"photometric": "rgb", "planarconfig": "separate"}),
        (np.moveaxis(FULL, -1, 1), {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"}),
    ],
    ids=["plain", "zlib", "as axes", "planes", "zlib planes"],
)
def test_tiff_stacks_in_colour(tmp_path: Path, stored: np.ndarray, options: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    with open_video(tmp_path / "a.tif") as video:
        np.testing.assert_array_equal(np.asarray(video), FULL)


def test_tiff_pages_saved_one_at_a_time(tmp_path: Path) -> None:
    pages = [Image.fromarray(frame) for frame in FULL]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        for frame in FULL:
            file.write(frame, contiguous=False, photometric="rgb", compression="zlib")
    for name in ("a.tif", "b.tif"):
        with open_video(tmp_path / name) as video:
            np.testing.assert_array_equal(np.asarray(video), FULL)
            assert video.name == name


def test_a_tiff_cut_short_gives_its_frames_or_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, FULL, photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.filehandle.seek(file.pages[3].dataoffsets[0])
        file.filehandle.write(b"damage")
    with open_video(path) as video:
        np.testing.assert_array_equal(video[4], FULL[4])
        with pytest.raises(VideoError, match=r"Image 3 of .*a\.tif cannot be read"):
            video.frame(3)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(VideoError, match=r"a\.tif"):
        open_video(path)


def test_tiff_with_channels_is_refused(tmp_path: Path) -> None:
    values = np.zeros((5, 2, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", values, metadata={"axes": "TCYX"}, compression="zlib")
    with pytest.raises(VideoError, match="axes TCYX"):
        open_video(tmp_path / "a.ome.tif")


# Fingerprints


def test_fingerprints_follow_the_content_and_not_the_path(clips: Clips, folder: Path, tmp_path: Path) -> None:
    clip = clips.path("stills.avi").read_bytes()
    (tmp_path / "copy.avi").write_bytes(clip)
    assert open_video(tmp_path / "copy.avi").fingerprint == open_video(clips.path("stills.avi")).fingerprint
    stack = tmp_path / "a.tif"
    tifffile.imwrite(stack, FULL, photometric="rgb")

    prints = [open_video(clips.path(name)).fingerprint for name in CLIPS]
    prints += [open_video(clips.path("stills.avi"), limits=(0, 99)).fingerprint]
    prints += [open_video(source).fingerprint for source in (folder, stack, FULL, 255 - FULL, FULL[:6])]
    prints += [open_video(FULL.astype(np.int16)).fingerprint, open_video(FULL[..., 0]).fingerprint]
    assert len(set(prints)) == len(prints)
    assert all(len(text) == 64 for text in prints)

    before = open_video(folder).fingerprint
    folder = folder.rename(tmp_path / "moved")
    assert open_video(folder).fingerprint == before
    (folder / "Frame 3.PNG").rename(folder / "Frame 4.PNG")
    assert open_video(folder).fingerprint != before


def test_a_fingerprint_of_a_file_that_is_gone(clips: Clips, tmp_path: Path) -> None:
    path = tmp_path / "copy.tif"
    tifffile.imwrite(path, FULL, photometric="rgb", compression="zlib")
    video = open_video(path)
    path.unlink()
    with pytest.raises(VideoError, match="can no longer be read"):
        _ = video.fingerprint


# One frame


def test_read_frame(clips: Clips, folder: Path, tmp_path: Path) -> None:
    clip = clips.path("long_gop.mp4")
    assert number_in(read_frame(f"{clip}@12")) == 12
    assert number_in(read_frame(f"{clip}@-1")) == 59
    assert number_in(read_frame(f"{folder}@3")) == 10
    image = read_frame(str(folder / "Frame 2.bmp"))
    np.testing.assert_array_equal(image, numbered(2))
    image[:] = 0

    named = tmp_path / "me@7"  # a file of its own, not frame 7 of "me"
    Image.fromarray(numbered(99)).save(named, format="png")
    assert number_in(read_frame(named)) == 99
    Image.fromarray(DEEP := np.full((5, 6), 9, np.uint16)).save(tmp_path / "deep.png")
    assert read_frame(tmp_path / "deep.png").shape == (*DEEP.shape, 3)


@pytest.mark.parametrize(
    ("reference", "error", "says"),
    [
        ("{clip}@60", FrameIndexError, "no frame 60"),
        ("{clip}@x", ImageError, "does not exist"),
        ("{clip}", ImageError, "VIDEO@FRAME"),
        ("missing.mp4@3", VideoError, "missing.mp4 does not exist"),
        ("missing.png", ImageError, "does not exist"),
        ("@3", ImageError, "does not exist"),
        ("a\0b@3", VideoError, "not a path|does not exist"),
    ],
)
def test_bad_references(clips: Clips, reference: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        read_frame(reference.format(clip=clips.path("stills.avi")))


def test_a_video_that_is_forgotten_closes_its_file(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FULL, photometric="rgb", compression="zlib")
    closed: list[bool] = []
    source = StackSource(tiff_stack(tmp_path / "a.tif"), cache_bytes=0, limits=None)
    close = source.close
    source.close = lambda: (close(), closed.append(True))  # type: ignore[method-assign]
    video = LazyVideo(source)
    assert not closed
    del video
    assert closed


def test_of_large_frames_few_decide_black_and_white(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(_stack, "_DECODED_VALUES", 3 * HEIGHT * WIDTH)
    frames = np.arange(20, dtype=np.uint16)[:, None, None] * np.ones((HEIGHT, WIDTH), np.uint16)

    def image(index: int) -> np.ndarray:
        read.append(index)
        return frames[index]

    stack = _stack.Stack("deep", frames.shape, image, lambda: "", str)
    StackSource(stack, cache_bytes=0, limits=None).frame(5)
    assert sorted(set(read) - {5}) == [0, 10, 19]


def test_side_data_that_pyav_has_no_name_for_is_no_obstacle(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "described at length" * 100
    Image.fromarray(numbered(3)).save(tmp_path / "a.avif", exif=exif)
    source = AvSource(tmp_path / "a.avif", cache_bytes=1 << 20, limits=None)
    assert number_in(source.frame(0)) == 3
    source.close()
