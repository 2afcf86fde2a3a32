"""Procedurally drawn scenes that teach a small model to find a known object in an unrelated clip.

An example is a *prior image* that shows an object among others, and a *clip* in which the same object turns up
elsewhere: moved, rotated, scaled, lit differently, among other things, at times occluded or absent. An object's
identity is its outline together with its surface (pattern and colours). Nothing else is shared between the prior
and an unrelated clip, so place and surroundings cannot be used to find it.

Everything is drawn from ``numpy.random.default_rng(seed)``: one seed and one configuration always give the same
bytes. Seeds below 1,000,000 are held out (`HELD_OUT_SEEDS`); training uses those from `FIRST_TRAINING_SEED` on, so
that no scene is both learnt and measured.

Each thing is drawn once, as a small sprite of colour and signed distance to its edge; a frame then costs one affine
look-up per thing, which keeps a frame near a millisecond. `shapes`, `textures`, `things` and `cells` say what there
is, `layout` where it is, `camera` how it is seen; `examples` and `lineups` put scenes together.
"""

from training.scenes.config import (
    FIRST_TRAINING_SEED,
    HELD_OUT_SEEDS,
    KEPT_OUT_SHAPES,
    KEPT_OUT_TEXTURES,
    OBJECT_ID,
    Example,
    SceneConfig,
)
from training.scenes.examples import make_batch, make_example
from training.scenes.lineups import LINEUP, make_lineup, make_shared
from training.scenes.shapes import KINDS

__all__ = [
    "FIRST_TRAINING_SEED",
    "HELD_OUT_SEEDS",
    "KEPT_OUT_SHAPES",
    "KEPT_OUT_TEXTURES",
    "KINDS",
    "LINEUP",
    "OBJECT_ID",
    "Example",
    "SceneConfig",
    "make_batch",
    "make_example",
    "make_lineup",
    "make_shared",
]
