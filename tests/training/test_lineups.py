"""Scenes whose images share several things: line-ups and scenes elsewhere."""

from dataclasses import replace

import numpy as np

from training import scenes
from training.recipe import SHARED

SIDE = 64


def test_things_have_one_number_in_all_images():
    config, both, differ, strangers = replace(SHARED, side=SIDE, microscopy=0.0), 0, 0, 0
    for seed in range(500, 540):
        images, things = scenes.make_shared(config, seed, 2)
        assert images.shape == (3, SIDE, SIDE, 3) and images.dtype == np.uint8
        assert things.shape == (3, SIDE, SIDE) and things.dtype == np.uint8
        first, later = (set(np.unique(each)) - {0} for each in things[:2])
        both += len(first & later)
        differ += len(later - first) + len(first - later)
        strangers += bool(later - first and later & first)
        assert max(first | later) <= 6
    assert both > 60  # things to be found in both,
    assert differ > 60  # and strangers in one of them
    assert strangers > 15  # a clip has some beside what is looked for, as clips elsewhere have
    again = scenes.make_shared(config, 539, 2)
    assert np.array_equal(again[0], images) and np.array_equal(again[1], things)


def test_a_thing_keeps_its_surface_from_the_image_to_the_clip():
    """In colour without other light, a thing's mean colour is nearer to its own than to another's."""
    config = replace(SHARED, side=SIDE, microscopy=0.0, appearance=0.0, effects=0.0, gray=0.0, hard=0.0)
    right = []
    for seed in range(600, 640):
        images, things = scenes.make_shared(config, seed)
        large = [k for k in range(1, 7) if min((things == k).sum((1, 2))) > 40]
        means = [[p[t == k].mean(0) for k in large] for p, t in zip(images.astype(float), things)]
        for k in range(len(large)):
            far = [np.linalg.norm(means[1][k] - other) for other in means[0]]
            right.append(int(np.argmin(far)) == k)
    assert len(right) > 60 and np.mean(right) > 0.9


def test_cells_go_on_from_the_image():
    images, things = scenes.make_shared(replace(SHARED, side=SIDE, microscopy=1.0), 7, 3)
    assert images.shape[0] == 4
    shared = set(np.unique(things[0])) & set(np.unique(things[1])) - {0}
    assert len(shared) >= 2
    for k in shared:  # each moves a little only
        at = [np.argwhere(things[t] == k).mean(0) for t in (0, 1)]
        assert np.linalg.norm(at[0] - at[1]) < SIDE / 3


def test_a_line_up_shows_nine_things_twice():
    all_shown, kinds_seen = 0, set()
    for seed in range(700, 720):
        images, things, kinds = scenes.make_lineup(replace(SHARED, side=SIDE), seed)
        assert images.shape == (2, SIDE, SIDE, 3) and images.dtype == np.uint8
        assert things.shape == (2, SIDE, SIDE) and things.max() <= scenes.LINEUP
        assert kinds.shape == (1 + scenes.LINEUP,) and kinds[0] == -1 and kinds[1:].min() >= 0
        assert len(set(kinds[1:])) in (3, 9)  # all of one surface, or three of each of three
        all_shown += sum(len(np.unique(each)) == 10 for each in things)
        kinds_seen |= set(kinds[1:])
    assert all_shown > 20  # others lie outside, or under others
    assert len(kinds_seen) > 15
    assert not {"heart", "pinwheel"} & set(scenes.KINDS)
    again = scenes.make_lineup(replace(SHARED, side=SIDE), 719)
    assert all(np.array_equal(a, b) for a, b in zip(again, (images, things, kinds), strict=True))


def test_the_number_of_a_thing_says_its_outline():
    """Rings and their like are hollow in both images, wherever they are."""
    hollow = []
    plain = dict.fromkeys(("appearance", "effects", "deform", "small"), 0.0)
    for seed in range(40):
        _, things, kinds = scenes.make_lineup(replace(SHARED, side=128, **plain), seed)
        for number in range(1, 10):
            for each in things:
                at = np.argwhere(each == number)
                if len(at) < 150 or at.min() == 0 or at.max() == 127:
                    continue
                middle = each[tuple(at.mean(0).round().astype(int))]
                ring = scenes.KINDS[kinds[number]] in ("ring", "frame", "eyelet", "hoop")
                if ring or scenes.KINDS[kinds[number]] in ("disc", "box", "regular"):
                    hollow.append((ring, middle != number))
    said = np.array(hollow)
    assert said[:, 0].sum() > 20 and (~said[:, 0]).sum() > 20
    assert (said[:, 0] == said[:, 1]).mean() > 0.85  # something may lie on a disc, or in a ring
