"""Small pools of scenes, and a model that begins with random weights."""

import pytest
import torch

from training import data, features, scenes
from training.export import BUNDLED
from training.model import Starter, initialise
from training.recipe import PoolConfig
from training.steps import Learner


def filled(family, device="cpu", **more):
    """A pool of four small scenes."""
    config = PoolConfig(family, scenes.SceneConfig(side=64, **more), 4, 8, (1.0, 1.0))
    pool = data.Pool(config, torch.device(device))
    _, arrays = data.SceneStream({"": config}, 0).message(0)
    pool.put({name: torch.from_numpy(array) for name, array in arrays.items()})
    return pool


@pytest.fixture(scope="session")
def make_pool():
    return filled


@pytest.fixture(scope="session")
def anchor():
    return features.Anchor(BUNDLED, torch.device("cpu"))


@pytest.fixture
def model():
    made = Starter()
    initialise(made, 0)
    return made


@pytest.fixture
def learner(model):
    made = Learner(model, 1e-3)
    made.begin(None, ())
    return made


@pytest.fixture(autouse=True)
def denormal_numbers():
    """Training on a CPU changes how this process computes: afterwards it is as other tests have it."""
    yield
    torch.set_flush_denormal(False)
