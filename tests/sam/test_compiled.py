"""Parts that are compiled once shapes settle: the same results, and few compilations."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch

from napari_samexp.sam.compiled import MOST_SHAPES, SETTLED, Settled, compile_model
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings
from napari_samexp.types import Prompt

COUNT = 12
SETTINGS = TrackSettings(side=tiny_run.SIDE, recent=2, pointers=3, keep_lost=True)


def prior(model: Any) -> PriorMemory:
    return tiny_run.prior_of(model, [(1, Prompt.from_lists(objects=[(32, 24)]))])


def results(model: Any, recorded: PriorMemory) -> list[Any]:
    return list(Tracker(model, recorded, SETTINGS).run(tiny_run.ArrayVideo(tiny_run.drawn_frames(COUNT))))


def test_a_part_is_compiled_when_its_shapes_come_back() -> None:
    compiled: list[Any] = []

    def compile(function: Any) -> Any:
        compiled.append(function)
        return function

    part = Settled(lambda x, scale=1.0: (x * scale,), compile)
    for _ in range(SETTLED - 1):
        part(torch.ones(2, 3))
    assert not compiled
    part(torch.ones(3, 3))  # another shape does not count
    assert not compiled
    out = part(torch.ones(2, 3))
    assert len(compiled) == 1 and torch.equal(out[0], torch.ones(2, 3))
    for _ in range(SETTLED):
        part(torch.ones(2, 3), scale=2.0)  # a compiled function knows its plain values, too
    assert len(compiled) == 2
    for size in range(10, 30):
        for _ in range(SETTLED):
            part(torch.ones(size))
    assert len(compiled) == MOST_SHAPES
    assert len(part._seen) <= 65


def test_what_a_compiled_part_returns_is_not_overwritten() -> None:
    room = torch.zeros(3)

    def into_the_same_room(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        room.copy_(x)
        return (room,)

    part = Settled(into_the_same_room, lambda function: function)
    for _ in range(SETTLED):
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
        assert len(part.compiled) == 1  # one picture size, one full memory
    for one, other in zip(expected, found):
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.scores[1].presence == pytest.approx(other.scores[1].presence, abs=1e-4)
        assert one.scores[1].iou == pytest.approx(other.scores[1].iou, abs=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_graphs_on_a_gpu_give_the_same_run(models: dict[str, Any]) -> None:
    plain = copy.deepcopy(models["SAM 2.1"]).to("cuda")
    recorded = prior(plain)
    expected = results(plain, recorded)
    found = results(compile_model(copy.deepcopy(plain)), recorded)
    for one, other in zip(expected, found):
        assert (one.labels != other.labels).mean() < 1e-3
        assert one.scores[1].presence == pytest.approx(other.scores[1].presence, abs=1e-2)
