"""Blocks of shared memory have an owner, and go with it."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from napari_samexp.engine import errors, sharing
from napari_samexp.engine.messages.base import ArrayRef
from napari_samexp.engine.sharing import SharedArray, SharedImage, read_shared, write_shared
from napari_samexp.errors import ImageError, SamexpError
from tests.engine.engine_tools import shared_blocks


@pytest.mark.parametrize("dtype", ["u1", "<u2", "f4", "?", ">i8"])
def test_an_array_is_read_as_it_was_given(dtype: str) -> None:
    array = np.arange(60).reshape(3, 4, 5).astype(dtype)[:, ::2]
    shared = SharedArray.of(array)
    read = read_shared(shared.ref)
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype
    shared.fill(array[::-1].copy())
    np.testing.assert_array_equal(read_shared(shared.ref), array[::-1])
    shared.release()
    shared.release()


def test_what_is_written_is_found_at_the_beginning() -> None:
    shared = SharedArray((4, 8), "u1")
    write_shared(shared.ref, np.arange(6, dtype=np.uint8).reshape(2, 3))
    np.testing.assert_array_equal(shared.read((2, 3)), [[0, 1, 2], [3, 4, 5]])
    shared.release()


def test_a_block_goes_with_its_owner() -> None:
    before = shared_blocks()
    shared, image = SharedArray((4,), "u1"), SharedImage(np.zeros((5, 6)))
    names = {shared.ref.block, image.ref.pixels.block}
    assert shared_blocks() == before | names
    ref = shared.ref
    del shared, image
    assert shared_blocks() == before
    with pytest.raises(SamexpError, match="no longer there"):
        read_shared(ref)
    with pytest.raises(SamexpError, match="no longer there"):
        write_shared(ArrayRef("smx-never", (1,), "|u1"), np.zeros(1, np.uint8))


def test_no_room_to_look_into_a_block_is_a_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = SharedArray((4,), "u1")

    def refuse(name: str) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("napari_samexp.engine.sharing.SharedMemory", refuse)
    for call in (lambda: read_shared(shared.ref), lambda: write_shared(shared.ref, np.zeros(1, np.uint8))):
        with pytest.raises(MemoryError):
            call()
    shared.release()


def test_a_image_is_a_snapshot() -> None:
    pixels = np.zeros((4, 5), np.uint16)
    image = SharedImage(pixels, "a", (0, 10))
    pixels[:] = 9
    assert not read_shared(image.ref.pixels).any()
    assert (image.hw, image.ref.name, image.ref.limits) == ((4, 5), "a", (0, 10))
    assert image.ref.key != SharedImage(pixels).ref.key
    image.release()


@pytest.mark.parametrize("pixels", [np.zeros((0, 4)), np.zeros(4), np.zeros((2, 2), object), [["a"]], 3.0])
def test_what_is_no_image_is_refused(pixels: object) -> None:
    with pytest.raises(ImageError, match="expected numbers"):
        SharedImage(pixels)  # type: ignore[arg-type]


def test_memory_that_is_not_there_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    before = shared_blocks()
    monkeypatch.setattr(sharing, "_free_bytes", lambda: 20 * 2**20)
    with pytest.raises(ImageError, match=r"8 MB is needed and 20 MB are free"):
        SharedImage(np.zeros((1024, 1024), np.float64))
    monkeypatch.setattr(sharing, "_free_bytes", lambda: None)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(sharing, "SharedMemory", refuse)
    with pytest.raises(SamexpError, match="is not available"):
        SharedArray((4,), "u1")
    assert shared_blocks() == before


class OutOfMemoryError(RuntimeError):
    """As torch names that of a GPU."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SamexpError("One sentence."), "One sentence."),
        (errors.Cancelled(), "Cancelled."),
        (MemoryError(), "choose a smaller encode side or a smaller model"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate"), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (RuntimeError("size\n mismatch"), "(RuntimeError: size mismatch)"),
        (ValueError("x" * 999), "(ValueError: xxx"),
    ],
)
def test_every_error_is_one_sentence(error: Exception, expected: str) -> None:
    sentence = str(errors.as_samexp_error(error))
    assert expected in sentence and "\n" not in sentence and len(sentence) < 400


@pytest.mark.parametrize(
    ("code", "expected"), [(-9, "SIGKILL"), (-11, "SIGSEGV"), (-250, "signal 250"), (1, "code 1")]
)
def test_the_end_of_a_worker_is_one_sentence(code: int, expected: str) -> None:
    assert expected in str(errors.exit_error(code))
