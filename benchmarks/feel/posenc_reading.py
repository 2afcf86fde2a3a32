"""How long a map takes, and what it costs, from files as large as SAM's largest.

    python -m benchmarks.feel.posenc_reading [--folder FOLDER] [FILE ...]

Files of random numbers under the official keys and shapes are made one after the other in a temporary folder
and deleted; the largest takes 2.6 GB of disk. A map of each is asked for as the dock does it: through a
worker that has started and holds no model, once with the file out of the system's cache and once from it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import queue
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests import ROOT

LAYOUTS = ROOT / "tests" / "data" / "layouts.json.gz"
LARGEST = ("sam_vit_h_4b8939.pth", "sam2.1_hiera_large.pt")
PATIENCE_S = 120.0


def make(layout: dict[str, Any], path: Path) -> None:
    import torch

    torch.manual_seed(0)
    state = {key: torch.rand(shape) for key, shape in layout["shapes"].items()}
    torch.save(state if layout["flat"] else {"model": state}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def forget(path: Path) -> None:
    """Take a file out of the system's cache, where the system lets us."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(path: Path, home: Path, *, cold: bool) -> dict[str, Any]:
    from napari_samexp.session import EncodingSession, MapRequest

    calls: queue.Queue[Callable[[], None]] = queue.Queue()
    maps: list[Any] = []

    def keep(made: Any) -> None:
        maps[:] = [None] * len(maps) + [made]  # the newest alone, as the dock does

    def until(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            calls.get(timeout=max(0.0, end - time.monotonic()))()

    with EncodingSession(deliver=calls.put, home=home) as session:
        source = session.first
        source.failed.connect(print)
        source.changed.connect(keep)
        source.described.connect(lambda _: source.request(MapRequest()))
        source.choose("starter")  # the worker has started once this is answered
        until(lambda: len(maps) == 1)
        worker = next(
            p for p in psutil.Process().children(recursive=True) if "spawn_main" in str(p.cmdline())
        )
        private, own = worker.memory_full_info().uss, psutil.Process().memory_full_info().uss
        if cold:
            forget(path)
        began = time.perf_counter()
        source.choose(str(path))
        until(lambda: len(maps) == 2)
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        source.request(
            MapRequest(grid_hw=tuple(size - 1 for size in maps[1].grid_hw))
        )  # as when a slider moves
        until(lambda: len(maps) == 3)
        again = time.perf_counter() - began
        info, made = worker.memory_full_info(), maps[2]
        return {
            "file": path.name,
            "GB": path.stat().st_size / 1e9,
            "cache": "cold" if cold else "warm",
            "map": "x".join(map(str, made.values.shape)),
            "map MiB": made.values.nbytes / 2**20,
            "first s": seconds,
            "next s": again,
            "worker +MiB": (info.uss - private) / 2**20,
            "worker RSS MiB": info.rss / 2**20,
            "viewer +MiB": (psutil.Process().memory_full_info().uss - own) / 2**20,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", default=LARGEST, metavar="FILE")
    parser.add_argument("--folder", type=Path, help="where to make them; by default the temporary folder")
    args = parser.parse_args()
    layouts = json.loads(gzip.decompress(LAYOUTS.read_bytes()))
    rows = []
    for name in args.files:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            path = Path(folder) / name
            make(layouts[name], path)
            rows += [measure(path, Path(folder), cold=cold) for cold in (True, False)]
    print(" | ".join(rows[0]))
    for row in rows:
        print(" | ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()))


if __name__ == "__main__":
    main()
