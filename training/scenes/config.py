"""What scenes look like, and what is drawn of one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Rng = np.random.Generator

HELD_OUT_SEEDS = range(0, 1_000_000)
"""Seeds for measuring only; never train on them."""

FIRST_TRAINING_SEED = 1_000_000
"""Training seeds start here."""

KEPT_OUT_SHAPES = ("heart", "pinwheel")
"""Outlines that are only drawn where a configuration names them: training never sees them."""

KEPT_OUT_TEXTURES = ("bricks", "honeycomb")
"""Patterns that are only drawn where a configuration names them: training never sees them."""

OBJECT_ID = 1
"""The object's number in every instance map."""

SMALLEST_PRIOR = 0.12  # diameter / side: a disc of this size covers 1.13 % of the image
SMALLEST = 0.03  # the same of a thing that is meant to be small


@dataclass(frozen=True)
class SceneConfig:
    """What scenes look like."""

    side: int = 128  # height and width of every image in pixels
    frames: int = 4  # of the clip
    distractors: tuple[int, int] = (1, 4)  # fewest and most other things in an image
    scale: tuple[float, float] = (0.12, 0.6)  # mean diameter (of a disc of the same area) of things / side
    motion: float = 1.0  # strength of movement, rotation, scaling and camera drift inside a clip
    # share of examples whose clip has another ground, other places and other things than the prior image;
    # the rest continue the prior's own scene in small motion
    unrelated: float = 1.0
    absent: float = 0.125  # probability that the object is in no frame of the clip
    occlusion: float = 0.35  # probability that something passes in front of the object
    appearance: float = (
        1.0  # strength of the change of light, tint, scale, tilt and rotation between prior and clip
    )
    hard: float = 0.3  # share of distractors that copy the object's surface or its outline (never both)
    # share of gray scenes of cells, bright on dark or gray with halos; their clip always continues the prior's scene
    microscopy: float = 0.2
    halos: float = (
        0.0  # share of the scenes of bright cells with a dark halo, up to half a radius wide, around each
    )
    leaving: float = (
        0.12  # share of clips of three frames or more in which the object leaves the image or enters it
    )
    priors: int = 1  # prior images
    small: float = 0.08  # share of things smaller than `scale` says, down to a diameter of 0.03 of the side
    hiding: float = (
        0.4  # share of the occluders that cover all of the object for a few frames before it returns
    )
    deform: float = 1.0  # strength of bending, swelling and rotation out of the plane
    effects: float = 1.0  # strength of blur, soft edges, shading, shadows, shake, photon noise, low contrast
    gray: float = 0.15  # share of the other scenes that have no colour
    shapes: tuple[
        str, ...
    ] = ()  # what the object's outline is drawn from; empty for those that training may see
    textures: tuple[str, ...] = ()  # the same of its pattern


@dataclass
class Example:
    """One prior image and one clip with their ground truth.

    Attributes
    ----------
    prior
        (H, W, 3) uint8.
    prior_mask
        (H, W) bool, the object in the prior image.
    frames
        (T, H, W, 3) uint8.
    masks
        (T, H, W) bool, the visible part of the object; all False where it is absent or hidden.
    prior_instances
        (H, W) uint8: 0 is ground, 1 the object, 2 and up the other visible things, without gaps.
    frame_instances
        (T, H, W) uint8: 0 is ground, 1 always the object, 2 and up the others, the same in every frame.
    more_priors, more_prior_masks
        (P - 1, H, W, 3) uint8 and (P - 1, H, W) bool: the other prior images.
    facts
        What was drawn: the kind of scene, the object's outline and pattern.
    """

    prior: np.ndarray
    prior_mask: np.ndarray
    frames: np.ndarray
    masks: np.ndarray
    prior_instances: np.ndarray
    frame_instances: np.ndarray
    more_priors: np.ndarray
    more_prior_masks: np.ndarray
    facts: dict[str, str]
