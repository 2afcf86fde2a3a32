"""Position encodings in a real worker: maps through shared memory, without a model and without torch here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_samexp.engine.messages.base import Failed
from napari_samexp.engine.messages.encodings import (
    ComputeEncoding,
    DescribeEncodings,
    EncodingComputed,
    Encodings,
)
from napari_samexp.engine.sharing import SharedArray
from napari_samexp.posenc.tables import read_tables
from tests.engine.engine_tools import OPTIONS, Line, save_tiny_model


def compute(line: Line, path: Path, shape: tuple[int, ...], **wanted: object) -> tuple[object, np.ndarray]:
    """Return the reply, and what lies in the block then."""
    asked = {"part": "absolute", "grid_hw": (5, 7), "window_tile": True, "dtype": "float32", **wanted}
    block = SharedArray(shape, np.float32)
    try:
        reply = line.ask(ComputeEncoding(str(path), into=block.ref, **asked), block)  # type: ignore[arg-type]
        return reply, block.read(shape)
    finally:
        block.release()


def test_a_model_is_described_from_its_tables(shared_line: Line, tiny_file: Path) -> None:
    reply = shared_line.ask(DescribeEncodings(str(tiny_file)))
    assert isinstance(reply, Encodings)
    assert (reply.name, reply.family, reply.weights) == ("tiny-random", "SAM 2.1", tiny_file.name)
    assert reply.parts == read_tables(tiny_file).parts


@pytest.mark.parametrize(
    "wanted",
    [{}, {"window_tile": False}, {"part": "memory:prior"}, {"dtype": "bfloat16"}, {"dtype": "float16-error"}],
)
def test_a_map_comes_through_shared_memory(shared_line: Line, tiny_file: Path, wanted: dict) -> None:
    reply, values = compute(shared_line, tiny_file, (8, 5, 7), **wanted)
    assert isinstance(reply, EncodingComputed) and reply.shape == (8, 5, 7)
    part = wanted.pop("part", "absolute")
    np.testing.assert_array_equal(values, read_tables(tiny_file).values(part, (5, 7), **wanted))


def test_what_cannot_be_is_one_sentence(shared_line: Line, tiny_file: Path, tmp_path: Path) -> None:
    for wanted, words in (
        ({"part": "relative:0"}, "no position encoding 'relative:0'; it has absolute"),
        ({"grid_hw": (0, 7)}, "give 1 to 1024"),
        ({"dtype": "int8"}, "choose float32"),
    ):
        reply, _ = compute(shared_line, tiny_file, (8, 5, 7), **wanted)
        assert isinstance(reply, Failed) and words in reply.sentence and not reply.trace
    (tmp_path / "page.pt").write_text("<html>")
    reply = shared_line.ask(DescribeEncodings(str(tmp_path / "page.pt")))
    assert isinstance(reply, Failed) and "web page" in reply.sentence


def test_a_file_that_was_replaced_is_read_again(shared_line: Line, tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path / "own.safetensors", seed=2)
    _, before = compute(shared_line, path, (8, 5, 7))
    save_tiny_model(tmp_path / "new.safetensors", seed=3, name="tiny-random-again").replace(path)
    _, after = compute(shared_line, path, (8, 5, 7))
    assert not np.allclose(before, after)
    np.testing.assert_array_equal(after, read_tables(path).values("absolute", (5, 7)))


def test_no_model_is_loaded_for_a_map(shared_line: Line, tiny_file: Path) -> None:
    compute(shared_line, tiny_file, (8, 5, 7))
    reply = shared_line.preview()
    assert isinstance(reply, Failed) and "No model is loaded" in reply.sentence


SCRIPT = """
import queue, sys
from pathlib import Path
import numpy as np
from napari_samexp.engine import WorkerOptions
from napari_samexp.session import EncodingSession, MapRequest

calls, told, maps, found = queue.Queue(), [], [], []


def until(condition):
    while not condition():
        calls.get(timeout=200)()
        assert not told, told


with EncodingSession(deliver=calls.put, home=Path(sys.argv[2]), options=eval(sys.argv[3])) as session:
    for source in (session.first, session.second):
        source.failed.connect(told.append)
        source.changed.connect(maps.append)
    session.start()
    session.first.choose(sys.argv[1])
    until(lambda: session.first.encodings)
    for height in range(2, 40):
        session.first.request(MapRequest(grid_hw=(height, 9)))
    until(lambda: maps and maps[-1].grid_hw == (39, 9))
    assert len(maps) < 10, len(maps)
    session.frequencies(maps[-1], found.append)
    until(lambda: found)
    assert found[0].shape == (8,)
    maps[-1].save(Path(sys.argv[2]) / "map.tif")
    print(maps[-1].values.sum(dtype=np.float64))
heavy = {"torch", "napari", "qtpy"} & set(sys.modules)
assert not heavy, heavy
"""


def test_a_sitting_never_imports_torch_and_the_newest_wish_wins(tmp_path: Path, tiny_file: Path) -> None:
    arguments = [str(tiny_file), str(tmp_path / "home"), repr(OPTIONS)]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, *arguments], capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    expected = read_tables(tiny_file).values("absolute", (39, 9)).sum(dtype=np.float64)
    assert float(run.stdout) == expected
    assert list((tmp_path / "home" / "sessions").iterdir()) == []  # nothing is left of the session
