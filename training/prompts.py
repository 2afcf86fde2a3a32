"""What a training example is asked: points, boxes and both, drawn on the CPU beside the scenes themselves.

The processes that draw scenes draw the prompts too and shrink the true masks to the decoder's grid; what
reaches the process that trains is a few arrays, so that a GPU does not wait for loops over pictures.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

from napari_samexp.sam.prompt_encoder import BOX_END, BOX_START

MOST = 3  # tokens of a prompt: up to three points, or the two corners of a box and a point
FINE, COARSE = 4, 16  # pixels of the picture in one of the decoder's masks and of the encoder's features
OWN = 0.75  # share of first priors whose prompt asks for the object
SMALLEST = 0.001  # share of a picture that a thing covers to be asked for
KIND_ENDS = (
    0.5,
    0.57,
    0.7,
    0.85,
    1.0,
)  # summed shares of one, two and three clicks, of a box, and of a box and a click
SURE = 0.0003  # share of a picture; with less of it in view, whether an object is there is not asked

Arrays = dict[str, np.ndarray[Any, Any]]


def deep_point(mask: np.ndarray, rng: np.random.Generator, tries: int = 8) -> np.ndarray:
    """Return (x, y), of a few random points of a mask the one with most of the mask around it."""
    inside = np.argwhere(mask)
    some = inside[rng.integers(len(inside), size=tries)]
    reach = max(1, round(0.3 * len(inside) ** 0.5))
    share = [
        mask[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].sum() for y, x in some
    ]
    return some[int(np.argmax(share))][::-1]


def clicks(target: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` points (x, y) and labels on a (H, W) mask: the first inside, later ones on either side."""
    inside, outside = np.argwhere(target), np.argwhere(~target)
    points, labels = [], []
    for i in range(count):
        positive = i == 0 or rng.random() < 0.7 or not len(outside)
        if positive and rng.random() < 0.6:
            points.append(deep_point(target, rng))
        else:
            pool = inside if positive else outside
            points.append(pool[rng.integers(len(pool))][::-1])
        labels.append(int(positive))
    return np.array(points, np.float32), np.array(labels, np.int64)


def box_around(target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the corners (2, 2) of a box around a mask, each side up to a tenth off."""
    rows, columns = np.flatnonzero(target.any(1)), np.flatnonzero(target.any(0))
    corners = np.array([[columns[0], rows[0]], [columns[-1], rows[-1]]], np.float32)
    corners += rng.uniform(-0.1, 0.1, (2, 2)) * (corners[1] - corners[0] + 1)
    return np.clip(corners, 0, np.array(target.shape[::-1]) - 1).astype(np.float32)


def draw_prompt(target: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points (K, 2) and labels (K,) that ask for a mask; box corners are labelled 2 and 3."""
    kind = bisect_right(KIND_ENDS, rng.random()) + 1
    if kind <= 3:
        return clicks(target, kind, rng)
    xy, labels = box_around(target, rng), np.array([BOX_START, BOX_END])
    if kind == 4:
        return xy, labels
    more, kinds = clicks(target, 1, rng)
    return np.concatenate((xy, more)), np.concatenate((labels, kinds))


def draw_prompts(targets: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points (..., 3, 2), labels (..., 3) and how many of them hold (...) for masks (..., H, W)."""
    shape = targets.shape[:-2]
    points = np.zeros((*shape, MOST, 2), np.float32)
    labels, count = np.zeros((*shape, MOST), np.int64), np.zeros(shape, np.int64)
    for place in np.ndindex(*shape):
        xy, kinds = draw_prompt(targets[place], rng)
        count[place] = len(kinds)
        points[place][: len(kinds)], labels[place][: len(kinds)] = xy, kinds
    return points, labels, count


def any_thing(things: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Return the mask of a random thing that is large enough to click on, None if there is none."""
    areas = np.bincount(things.ravel())
    ids = [i for i in range(1, len(areas)) if areas[i] >= SMALLEST * things.size]
    return things == rng.choice(ids) if ids else None


def choose_targets(batch: Arrays, own: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return what is to be prompted in each picture, (B, P + T, H, W), and whether there is anything.

    Prior pictures are asked for the object where `own` (B, P); all others for any thing, which teaches
    clicks. The first prior alone has a map of all things; in the others the object is the one thing known.
    """
    targets, asked = [], []
    for i in range(len(own)):
        pictures: list[np.ndarray | None] = [batch["prior_mask"][i], *batch["more_prior_masks"][i]]
        if not own[i, 0]:
            pictures[0] = any_thing(batch["prior_instances"][i], rng)
        pictures += [any_thing(things, rng) for things in batch["frame_instances"][i]]
        size = batch["masks"].shape[2:]
        asked.append([target is not None and bool(target.any()) for target in pictures])
        targets.append([np.ones(size, bool) if not ok else t for t, ok in zip(pictures, asked[-1])])
    return np.array(targets), np.array(asked)


def covered(masks: np.ndarray, factor: int = FINE) -> np.ndarray:
    """(..., H, W) bool to the number of covered pixels, uint8, of each square of `factor` pixels."""
    height, width = masks.shape[-2] // factor, masks.shape[-1] // factor
    squares = masks.view(np.uint8).reshape(*masks.shape[:-2], height, factor, width, factor)
    # sums over short axes take numpy ten times as long as whole arrays that are added up
    rows = sum((squares[..., k, :, :] for k in range(1, factor)), squares[..., 0, :, :])
    return np.asarray(sum((rows[..., k] for k in range(1, factor)), rows[..., 0]))


def turned(batch: Arrays, rng: np.random.Generator) -> Arrays:
    """Return scenes of `scenes.make_batch` that show the same in another way.

    All pictures of the batch are mirrored, or turned by right angles, alike; their colours change places, and
    clips may run backwards.
    """
    flips = [axis for axis in (0, 1) if rng.random() < 0.5]
    swapped, backwards = not flips or rng.random() < 0.5, rng.random() < 0.5
    colours = rng.permutation(3)

    def again(name: str, array: np.ndarray) -> np.ndarray:
        coloured = name in ("prior", "frames", "more_priors")
        first = array.ndim - 2 - coloured
        array = np.flip(array, [first + axis for axis in flips])
        array = np.swapaxes(array, first, first + 1) if swapped else array
        if backwards and name in ("frames", "masks", "frame_instances"):
            array = array[:, ::-1]
        return array[..., colours] if coloured else array

    return {name: again(name, array) for name, array in batch.items()}


def in_view(share: Any) -> tuple[Any, Any]:
    """Return, for the share of each frame that shows the object, whether it is there and whether that is clear."""
    present = share > SURE
    return present, present | (share == 0)


def with_prompts(batch: Arrays, rng: np.random.Generator) -> Arrays:
    """Return what a training step needs of a batch of scenes, prior pictures before the frames of the clip.

    Parameters
    ----------
    batch
        Arrays of `scenes.make_batch`: B examples of P prior pictures and T frames.

    Returns
    -------
    dict
        pictures (B, P + T, H, W, 3) uint8; own (B, P) bool, whether that prior's prompt asks for the object;
        asked (B, P + T) bool, whether a picture has anything to prompt; points (B, P + T, 3, 2) and labels
        (B, P + T, 3), of which `count` (B, P + T) hold; target and truth (B, P + T, H / 4, W / 4) uint8, pixels
        of 16 that show the prompted thing and the object; present and sure (B, T) bool, whether a frame
        shows the object and whether that is clear.
    """
    priors = 1 + batch["more_priors"].shape[1]
    own = rng.random((len(batch["prior"]), priors)) < OWN
    own[:, 1:] = True  # further priors have no map of other things
    targets, asked = choose_targets(batch, own, rng)
    points, labels, count = draw_prompts(targets, rng)
    truth = np.concatenate((batch["prior_mask"][:, None], batch["more_prior_masks"], batch["masks"]), 1)
    present, sure = in_view(batch["masks"].mean((2, 3)))
    return {
        "pictures": np.concatenate((batch["prior"][:, None], batch["more_priors"], batch["frames"]), 1),
        "own": own,
        "asked": asked,
        "points": points,
        "labels": labels,
        "count": count,
        "target": covered(targets),
        "truth": covered(truth),
        "present": present,
        "sure": sure,
    }
