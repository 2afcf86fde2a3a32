"""The training scripts, as tests of each import them."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

TRAINING = Path(__file__).parents[2] / "training"
NAMES = ("scenes", "prompts", "feed", "muon", "train", "train_gpu", "evaluate", "learning_curve", "export",
         "fit_iou", "train_pairs", "tell_apart")  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    """The training scripts by their names; they import one another as files of one folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TRAINING))
        for name in NAMES:
            patch.delitem(sys.modules, name, raising=False)
        yield {name: importlib.import_module(name) for name in NAMES}
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def train(parts):
    return parts["train"]


@pytest.fixture
def on_cpu(train, monkeypatch):
    """Training on a CPU changes how this process computes: afterwards it is as other tests have it."""
    monkeypatch.setattr(train.functional, "scaled_dot_product_attention", train.plain_attention)
    yield
    torch.set_flush_denormal(False)
