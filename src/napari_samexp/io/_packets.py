"""Which packet of a video file holds which frame, computed once from the packet headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NO_TIME", "FrameTable", "PacketList"]

# times are in the stream's time base; this marks a missing one
NO_TIME = int(np.iinfo(np.int64).min)

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PacketList:
    """The packets of a stream, in the order in which they are stored and decoded.

    Parameters
    ----------
    pts, dts : array, shape (P,), int64
        Presentation and decoding times, or `NO_TIME`.
    sizes : array, shape (P,), int64
        Bytes.
    shown : array, shape (P,), bool
        False for packets that an edit list removes, truncated packets, and VP8's hidden frames.
    keys : array, shape (P,), bool
        Whether the file marks the packet as a key frame, where decoding can start.
    """

    pts: Int64s
    dts: Int64s
    sizes: Int64s
    shown: Bools
    keys: Bools

    @classmethod
    def of(cls, packets: Iterable[Any], codec: str) -> PacketList:
        """Return the list of `packets`, from their headers."""
        # straight into an array: Python tuples would take ten times the memory
        rows = np.fromiter((_row(packet, codec) for packet in packets), np.dtype((np.int64, 5)))
        pts, dts, sizes, shown, keys = rows.T.copy()
        keys[:1] = 1  # nothing comes before the first
        if codec == "gif":  # later images are drawn over earlier ones, whatever their headers say
            keys[1:] = 0
        return cls(pts, dts, sizes, shown.astype(np.bool_), keys.astype(np.bool_))

    @property
    def in_doubt(self) -> bool:
        """Whether the times leave open in which order the frames are shown."""
        times = self.pts[self.shown]
        return bool((times == NO_TIME).any()) or len(np.unique(times)) < len(times)

    @cached_property
    def key_places(self) -> dict[int, int]:
        """The packet of each key frame by its presentation time."""
        keys = np.flatnonzero(self.keys)
        return dict(zip(self.pts[keys].tolist(), keys.tolist()))


def _row(packet: Any, codec: str) -> tuple[int, int, int, bool, bool]:
    hidden = codec == "vp8" and not bytes(packet)[0] & 0x10  # the show_frame bit, RFC 6386 section 9.1
    return (
        NO_TIME if packet.pts is None else packet.pts,
        NO_TIME if packet.dts is None else packet.dts,
        packet.size,
        not (packet.is_discard or packet.is_corrupt or hidden),
        packet.is_keyframe and not packet.is_corrupt,
    )


@dataclass(frozen=True, eq=False)
class FrameTable:
    """Frames in presentation order, and where to start decoding for each.

    A packet is identified by its position in the file, not by its time: times can be missing or repeated.

    Parameters
    ----------
    packets : PacketList
    order : array, shape (T,), int64
        The packet that holds frame t.
    clock : array, shape (P,), int64
        A number for each packet that increases in presentation order.
    keys : array, shape (K,), int64
        Packets at which decoding can start, ascending; the first is 0.
    """

    packets: PacketList
    order: Int64s
    clock: Int64s
    keys: Int64s

    @classmethod
    def by_time(cls, packets: PacketList) -> FrameTable:
        """Return the table of packets with distinct presentation times."""
        shown = np.flatnonzero(packets.shown)
        order = shown[np.argsort(packets.pts[shown], kind="stable")]
        return cls(packets, order, packets.pts, np.flatnonzero(packets.keys))

    @classmethod
    def by_decoding(cls, packets: PacketList, decoded: Iterable[int]) -> FrameTable:
        """Return the table of packets whose frames a decoder returned in the order `decoded`."""
        shown = packets.shown
        order = np.array([p for p in dict.fromkeys(decoded) if shown[p]], np.int64)
        clock = np.full(len(shown), -1, np.int64)
        clock[order] = np.arange(len(order))
        timed = not (packets.pts == NO_TIME).any()
        keys = np.flatnonzero(packets.keys) if timed else np.zeros(1, np.int64)
        return cls(packets, order, clock, keys)

    def __len__(self) -> int:
        return len(self.order)

    def from_frame(self, frame: int) -> FrameTable:
        """Return the table without the frames before `frame`."""
        return replace(self, order=self.order[frame:])

    def without_key(self, packet: int) -> FrameTable:
        """Return the table without `packet` as a key frame."""
        return replace(self, keys=self.keys[self.keys != packet])

    def with_one_key(self) -> FrameTable:
        """Return the table with the first packet as the only key frame."""
        return replace(self, keys=np.zeros(1, np.int64))

    @property
    def frame_of(self) -> Int64s:
        """Array, shape (P,), int64: the frame that each packet holds, or -1."""
        frames = np.full(len(self.clock), -1, np.int64)
        frames[self.order] = np.arange(len(self.order))
        return frames

    def start_for(self, frame: int, *, before: int | None = None) -> int | None:
        """Return the last packet from which decoding gives `frame` exactly, or None if there is none.

        That is not always the nearest key frame: frames stored after a key frame but shown before it (an
        open GOP) need the one before.

        Parameters
        ----------
        frame : int
        before : int, optional
            Only consider packets before this one.
        """
        packet = self.order[frame]
        last = packet if before is None else min(packet, before - 1)
        keys = self.keys[: np.searchsorted(self.keys, last, "right")]
        fitting = keys[(self.clock[keys] <= self.clock[packet]) | (keys == 0)]
        return int(fitting[-1]) if len(fitting) else None

    def seek_times(self, start: int) -> Iterator[int]:
        """Yield times to seek to that may lead to packet `start` or an earlier one, nearest first."""
        place = int(np.searchsorted(self.keys, start))
        back = 0
        while place - back >= 0:
            key = self.keys[place - back]
            yield from (int(t) for t in (self.packets.pts[key], self.packets.dts[key]) if t != NO_TIME)
            back = 2 * back or 1

    def times(self, time_base: float, rate: float | None) -> npt.NDArray[np.float64]:
        """Return the time of each frame in seconds from the first, (T,) float64."""
        for stamps in (self.packets.pts, self.packets.dts):
            ticks = np.sort(stamps[self.order])
            if len(ticks) and (ticks != NO_TIME).all():
                return np.asarray((ticks - ticks[0]) * time_base, np.float64)
        return np.arange(len(self), dtype=np.float64) / (rate or 1.0)
