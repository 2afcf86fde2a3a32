"""How the bundled weights were made, as configuration: pools of scenes, kinds of steps, stages.

A step takes scenes of one pool. What it shows follows the share of the run's time that is used up, so that a slow
machine sees less of everything and still ends with a small learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from training.scenes import SceneConfig

SHARED = SceneConfig(side=256, frames=3, halos=0.5, hard=0.6)
EXAMPLE = SceneConfig(side=256, unrelated=0.85, microscopy=0.25, halos=0.5, absent=0.25, hard=0.4)
RETURNING = replace(EXAMPLE, frames=8, priors=2, occlusion=0.5, hiding=0.5)


@dataclass(frozen=True)
class PoolConfig:
    """Scenes that are held on the device, the newest in place of the oldest."""

    family: Literal["example", "shared", "lineup"]  # of `scenes.make_...`
    scene: SceneConfig
    at_once: int  # scenes of one message; those of all pools take about as long to draw
    room: int  # scenes that are held
    often: tuple[float, float]  # shares of the messages, while the encoder learns alone and later

    @property
    def priors(self) -> int:
        """Prior images of a scene."""
        return self.scene.priors if self.family == "example" else 1

    @property
    def frames(self) -> int:
        """Frames of a scene's clip."""
        return 1 if self.family == "lineup" else self.scene.frames


@dataclass(frozen=True)
class StepConfig:
    """A kind of step: what it takes of a pool's scenes. For CUDA all steps of a kind are of the same size."""

    name: str  # in the log
    pool: str
    batch: int
    side: int  # that images are enlarged to
    frames: int = 1
    priors: int = 1
    recent: int = 0  # memories of earlier frames
    encoder_only: bool = False  # whether the encoder learns alone


@dataclass(frozen=True)
class Stage:
    """A part of the run, until a share of its time is used up; its steps come in turn."""

    until: float
    steps: tuple[str, ...]


POOLS = {
    "examples": PoolConfig("example", EXAMPLE, 20, 12_000, (0.15, 0.4)),
    "returning": PoolConfig("example", RETURNING, 12, 3_000, (0.1, 0.25)),
    "shared": PoolConfig("shared", SHARED, 20, 10_000, (0.25, 0.23)),
    "lineups": PoolConfig("lineup", SHARED, 24, 20_000, (0.5, 0.12)),
}

STEPS = (
    StepConfig("alone-lineups-256", "lineups", 96, 256, encoder_only=True),
    StepConfig("alone-lineups-384", "lineups", 44, 384, encoder_only=True),
    StepConfig("alone-pairs-256", "shared", 96, 256, encoder_only=True),
    StepConfig("alone-pairs-384", "shared", 44, 384, encoder_only=True),
    StepConfig("lineups-256", "lineups", 56, 256),
    StepConfig("pairs-256", "shared", 56, 256),
    StepConfig("pairs-384", "shared", 26, 384),
    StepConfig("clips-256", "shared", 32, 256, frames=3, recent=6),
    StepConfig("clips-384", "shared", 16, 384, frames=3, recent=6),
    StepConfig("short-256", "examples", 56, 256, frames=4, recent=3),
    StepConfig("short-384", "examples", 26, 384, frames=4, recent=3),
    StepConfig("two-priors", "returning", 48, 256, frames=4, priors=2, recent=3),
    StepConfig("long-384", "returning", 16, 384, frames=8, recent=6),
)

# the encoder alone; then images as they are drawn, then more and more enlarged ones and longer clips
STAGES = (
    Stage(0.25, ("alone-lineups-256", "alone-lineups-384", "alone-lineups-256", "alone-pairs-384", "alone-lineups-256",
                 "alone-pairs-256", "alone-lineups-384", "alone-lineups-256", "alone-pairs-384")),
    Stage(0.55, ("short-256", "pairs-256", "clips-256", "short-384", "lineups-256", "short-256", "pairs-384",
                 "two-priors")),
    Stage(0.775, ("short-384", "pairs-384", "clips-256", "long-384", "lineups-256", "short-256", "clips-384",
                  "two-priors", "short-384", "pairs-256")),
    Stage(1.0, ("short-384", "long-384", "pairs-384", "long-384", "clips-384", "short-384", "two-priors", "long-384",
                "lineups-256", "clips-384")),
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A whole run; the defaults are those of the fifteenth, which made the bundled weights."""

    minutes: float = 11.65  # of the whole run, all calls together
    pools: dict[str, PoolConfig] = field(default_factory=lambda: POOLS)
    steps: tuple[StepConfig, ...] = STEPS
    stages: tuple[Stage, ...] = STAGES
    soften: tuple[float, ...] = (
        0.3,
        0.2,
    )  # factors of the queries that attend to memories, where the run begins
    true_memory: float = 0.25  # share of priors that are remembered with their true masks
    lr: float = 2.2e-3
    warm_up: int = 100  # steps, where a call begins
    average: float = 0.998  # decay of the averaged weights
    skip: int = 200_000  # messages with scenes that other runs have drawn
    seed: int = 0
    fill: int = 300  # scenes in each pool before it begins
    every: int = 25  # steps between lines of the log
    keep: float = 2.0  # minutes between saved states

    def step_at(self, share: float, step: int) -> StepConfig:
        """Return which kind of step comes, where a share of the time is used up."""
        turns = next((stage.steps for stage in self.stages if share < stage.until), self.stages[-1].steps)
        return next(kind for kind in self.steps if kind.name == turns[step % len(turns)])

    def scaled(self, batch: float, room: float) -> Recipe:
        """Return the recipe for a smaller or larger machine: factors of the batches and of the pools."""
        steps = tuple(replace(kind, batch=max(2, round(kind.batch * batch))) for kind in self.steps)
        pools = {
            name: replace(pool, room=max(pool.at_once, round(pool.room * room)))
            for name, pool in self.pools.items()
        }
        return replace(self, steps=steps, pools=pools)
