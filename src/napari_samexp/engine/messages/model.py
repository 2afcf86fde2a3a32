"""Loading a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from napari_samexp.engine.messages.base import Reply, Request
from napari_samexp.engine.messages.prompts import PriorState
from napari_samexp.sam.variants import MemoryVariant


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that is ready; `side_multiple` is what an encode side must be a multiple of.

    `variant` is there for models that have a memory, so that the work of a run can be counted.
    """

    name: str
    family: str
    weights: str
    device: str
    dtype: str
    image_size: int
    side_multiple: int
    has_memory: bool
    parameters: int
    variant: MemoryVariant | None = None


@dataclass(frozen=True, slots=True)
class LoadModel(Request):
    """Load a model by name or path; the one in use stays until the new one is ready."""

    name: str
    device: str = "auto"
    dtype: str = "float32"
    graphs: bool = False


@dataclass(frozen=True, slots=True)
class Loaded(Reply):
    """The model is ready; `notice` says if the prior cannot be used with it."""

    final: ClassVar[bool] = True

    model: ModelInfo
    prior: PriorState
    notice: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Ready(Reply):
    """The worker has started; `prior` is what the session's folder held."""

    pid: int
    prior: PriorState
    notice: str = ""
    code: str = ""
