"""Parts that are compiled once their shapes repeat: the same results, and few compilations."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils._pytree import tree_leaves

from napari_samexp.errors import SettingsError
from napari_samexp.sam.fast.graphs import (
    MAX_SHAPES,
    MIN_CALLS,
    PARTS,
    CapturedFunction,
    ShapeCache,
    _capture_graph,
    compile_model,
    fuse,
)
from napari_samexp.sam.weights import loading
from napari_samexp.sam.weights.loading import load_model, metadata_for
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings
from napari_samexp.types import Prompt
from tests import tiny_run

CPU, META = torch.device("cpu"), torch.device("meta")
COUNT = 12
SETTINGS = TrackSettings(side=tiny_run.SIDE, recent=2, pointers=3, keep_lost=True)


def prior(model: Any) -> PriorMemory:
    return tiny_run.prior_of(model, [(1, Prompt.from_lists(objects=[(32, 24)]))])


def results(model: Any, recorded: PriorMemory) -> list[Any]:
    return list(Tracker(model, recorded, SETTINGS).run(tiny_run.ArrayVideo(tiny_run.drawn_frames(COUNT))))


def test_a_part_is_compiled_when_its_shapes_repeat() -> None:
    compiled: list[Any] = []

    def compile(function: Any) -> Any:
        compiled.append(function)
        return function

    part = ShapeCache(lambda x, scale=1.0: (x * scale,), compile)
    for _ in range(MIN_CALLS - 1):
        part(torch.ones(2, 3))
    assert not compiled
    part(torch.ones(3, 3))  # another shape does not count
    assert not compiled
    out = part(torch.ones(2, 3))
    assert len(compiled) == 1 and torch.equal(out[0], torch.ones(2, 3))
    for _ in range(MIN_CALLS):
        part(torch.ones(2, 3), scale=2.0)  # a compiled function knows its plain values, too
    assert len(compiled) == 2
    for size in range(10, 30):
        for _ in range(MIN_CALLS):
            part(torch.ones(size))
    assert len(compiled) == MAX_SHAPES
    assert len(part._calls) <= 65


def test_what_a_compiled_part_returns_is_not_overwritten() -> None:
    room = torch.zeros(3)

    def into_the_same_room(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        room.copy_(x)
        return (room,)

    part = ShapeCache(into_the_same_room, lambda function: function)
    for _ in range(MIN_CALLS):
        part(torch.zeros(3))
    first, second = part(torch.ones(3)), part(torch.full((3,), 2.0))
    assert first[0].tolist() == [1.0] * 3 and second[0].tolist() == [2.0] * 3


def test_static_shapes_give_the_same_run(models: dict[str, Any]) -> None:
    plain = models["SAM 2.1"]
    recorded = prior(plain)
    expected = results(plain, recorded)
    model = compile_model(
        copy.deepcopy(plain), backend="eager"
    )  # traces, and spares the minute of a compiler
    found = results(model, recorded)
    for part in (model.image_features, model.recall, model.track, model.encode_memory):
        assert len(part.compiled) == 1  # one image size, one full memory
    for one, other in zip(expected, found):
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.scores[1].presence == pytest.approx(other.scores[1].presence, abs=1e-4)
        assert one.scores[1].iou == pytest.approx(other.scores[1].iou, abs=1e-4)


def replayed(run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """What a CUDA graph does, on a CPU: the same work again, from and into the same memory."""
    out = run()

    @torch.inference_mode()  # a graph does not mind in which mode it was captured
    def start() -> None:
        for old, new in zip(tree_leaves(out), tree_leaves(run())):
            old.copy_(new)

    return start, out


def not_captured(run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    raise RuntimeError("no room")


def test_captured_work_reads_its_arguments_and_leaves_them_unchanged() -> None:
    weight = torch.full((3,), 2.0)
    part = CapturedFunction(lambda x, pair, more=0: (x * weight + pair[0], pair[1] + more), CPU, replayed)
    with torch.no_grad():
        for value in (1.0, 5.0):
            x, pair = torch.full((3,), value), [torch.ones(3), torch.zeros(2)]
            out = part(x, pair, more=4)
            assert out[0].tolist() == [2 * value + 1] * 3 and out[1].tolist() == [4.0] * 2
            assert x.tolist() == [value] * 3
        weight += 1  # a weight that is changed in its place is seen
        assert part(x, pair, more=4)[0].tolist() == [16.0] * 3
    assert part(torch.ones(3, requires_grad=True), pair)[0].requires_grad


def test_captured_work_is_replayed_in_and_out_of_inference_mode() -> None:
    part = CapturedFunction(lambda x: x + 1, CPU, replayed)
    with torch.inference_mode():
        assert part(torch.ones(2)).tolist() == [2.0, 2.0]
    with torch.no_grad():
        assert part(torch.zeros(2)).tolist() == [1.0, 1.0]


def test_memory_that_captured_work_reads_is_held() -> None:
    tables = {"now": torch.ones(4)}
    held = tables["now"].untyped_storage()
    part = CapturedFunction(lambda x: (x * 2 + tables["now"][:2]).relu(), CPU, replayed)
    with torch.no_grad():
        part(torch.ones(2))
    assert part._storages is not None
    kept = [memory.data_ptr() for memory in part._storages.held]
    # the table and what is given; nothing of what is made on the way
    assert sorted(kept) == sorted([held.data_ptr(), part._inputs[0].untyped_storage().data_ptr()])


def moved(x: torch.Tensor) -> torch.Tensor:
    return torch.arange(2.0).to(x.device) + x


def read(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if float(x.sum()) > 0 else x


@pytest.mark.parametrize(
    ("function", "device", "capture", "why"),
    [
        (torch.relu, CPU, not_captured, "no room"),
        (moved, META, replayed, "not on the device"),
        (read, CPU, replayed, "reads a number"),
    ],
)
def test_what_cannot_be_captured_runs_eagerly(
    function: Any, device: torch.device, capture: Any, why: str
) -> None:
    calls: list[torch.Tensor] = []

    def watched(x: torch.Tensor) -> Any:
        calls.append(x)
        return function(x)

    part = CapturedFunction(watched, device, capture)
    x = torch.ones(2, device=device)
    with torch.no_grad(), pytest.warns(RuntimeWarning, match=why):
        found = part(x)
    assert calls[-1] is x and found.shape == (2,)
    if device == CPU:
        assert torch.equal(found, function(x))
    with torch.no_grad():  # tried, and warned of, once
        part(x)
    assert len(calls) == 3


def test_captured_parts_give_the_same_run(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # attention as a GPU has it: a CPU's own looks at its sums
    monkeypatch.setattr("napari_samexp.sam.fast.attention._is_chunked", lambda q: False)
    plain = models["SAM 2.1"]
    recorded = prior(plain)
    expected = results(plain, recorded)
    model = copy.deepcopy(plain)
    for name in PARTS:
        setattr(
            model,
            name,
            ShapeCache(getattr(model, name), partial(CapturedFunction, device=CPU, capture=replayed)),
        )
    found = results(model, recorded)
    for name in PARTS:
        (part,) = getattr(model, name).compiled.values()
        assert part._replay is not None  # it was captured
    for one, other in zip(expected, found):
        np.testing.assert_array_equal(one.labels, other.labels)
        for label, score in one.scores.items():
            # on some processors the last digit of a product depends on where in memory its factors are
            found_one = other.scores[label]
            assert (found_one.presence, found_one.iou) == pytest.approx((score.presence, score.iou), abs=1e-5)


def test_fused_blocks_give_the_same_run_and_are_what_is_captured(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_samexp.sam.fast.attention._is_chunked", lambda q: False)
    plain = models["SAM 2.1"]
    recorded = prior(plain)
    expected = results(plain, recorded)
    model, fused = copy.deepcopy(plain), []

    def backend(graph: Any, _: Any) -> Any:
        def run(*given: Any) -> Any:
            fused.append(graph)
            return graph.forward(*given)

        return run

    def counted(run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        before = len(fused)
        made = replayed(run)
        fused_in.append(len(fused) - before)
        return made

    fused_in: list[int] = []
    fuse(model, partial(torch.compile, dynamic=False, backend=backend))
    for name in PARTS:
        setattr(
            model,
            name,
            ShapeCache(getattr(model, name), partial(CapturedFunction, device=CPU, capture=counted)),
        )
    found = results(model, recorded)
    # encoder, before recall, recall, decoder and memory encoder, in their order
    blocks = len(model.image_encoder.trunk.blocks)
    assert sorted(fused_in) == [0, 0, 1, 1, blocks]
    for one, other in zip(expected, found):
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.scores[1].presence == pytest.approx(other.scores[1].presence, abs=1e-4)


def test_a_cpu_has_no_graphs(models: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="CUDA device"):
        compile_model(copy.deepcopy(models["SAM 2.1"]), graphs_only=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("graphs_only", [True, False])
def test_graphs_on_a_gpu_give_the_same_run(models: dict[str, Any], graphs_only: bool) -> None:
    plain = copy.deepcopy(models["SAM 2.1"]).to("cuda")
    recorded = prior(plain)
    expected = results(plain, recorded)
    model = compile_model(copy.deepcopy(plain), graphs_only=graphs_only)
    found = results(model, recorded)
    for name in PARTS:
        assert [part._replay is not None for part in getattr(model, name).compiled.values()] == [True], name
    for one, other in zip(expected, found):
        assert (one.labels != other.labels).mean() < 1e-3
        assert one.scores[1].presence == pytest.approx(other.scores[1].presence, abs=1e-2)


@pytest.mark.parametrize("graphs", [False, True])
def test_a_model_is_loaded_for_graphs_where_there_is_a_device_for_them(
    graphs: bool, models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "tiny.safetensors", []
    save_file(models["SAM 2.1"].state_dict(), path, metadata_for(models["SAM 2.1"].variant))
    monkeypatch.setattr(
        "napari_samexp.sam.fast.graphs.compile_model", lambda model, **options: asked.append(options)
    )
    load_model(path, device="cpu", graphs=graphs)
    assert asked == []
    # as on a machine with such a device, which this one may not have
    monkeypatch.setattr(loading, "choose_device", lambda name: SimpleNamespace(type="cuda"))
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, where: self)
    monkeypatch.setattr(loading, "choose_dtype", lambda *_: torch.float32)
    load_model(path, device="cuda", graphs=graphs)
    assert asked == [{"graphs_only": True}] * graphs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_graphs_outlive_the_tables_of_another_grid(models: dict[str, Any]) -> None:
    plain = copy.deepcopy(models["SAM 2.1"]).to("cuda")
    model = compile_model(copy.deepcopy(plain), graphs_only=True)
    image = tiny_run.drawn_frames(1)[0]
    expected = plain.encode(image, side=tiny_run.SIDE).embedding
    for side in (tiny_run.SIDE, 2 * tiny_run.SIDE):
        for _ in range(MIN_CALLS + 1):
            model.encode(image, side=side)
    found = model.encode(image, side=tiny_run.SIDE).embedding
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_capture_that_fails_harms_nothing() -> None:
    device = torch.device("cuda")
    capture = partial(_capture_graph, device, torch.cuda.graph_pool_handle())
    part = ShapeCache(lambda x: x[x > 0], partial(CapturedFunction, device=device, capture=capture))
    ones = torch.ones(3, device=device)
    with torch.no_grad():
        for _ in range(MIN_CALLS - 1):
            part(ones)
        with pytest.warns(RuntimeWarning, match="could not be captured"):
            assert part(ones).tolist() == [1.0] * 3
        assert part(-ones).tolist() == []
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert len(torch.rand(3, device=device)) == 3  # a generator can be left as if it were still captured
