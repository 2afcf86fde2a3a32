"""The scenes that the starter is trained on: seeded, truthful, visible and varied."""

from dataclasses import replace

import numpy as np
import pytest

from training import scenes
from training.scenes import camera, layout, shapes, textures

SMALL = scenes.SceneConfig(side=64, frames=3)
# what a camera and the fainter kinds of scenes do is left out where a test looks at the drawing itself
CLEAR = {"small": 0.0, "deform": 0.0, "effects": 0.0, "gray": 0.0, "leaving": 0.0}
FIELDS = (
    "prior", "prior_mask", "frames", "masks", "prior_instances", "frame_instances", "more_priors",
    "more_prior_masks",
)  # fmt: skip


def _examples(config, count, start=0):
    return [scenes.make_example(config, seed) for seed in range(start, start + count)]


def _box(mask):
    return [int(v) for axis in np.nonzero(mask) for v in (axis.min(), axis.max())]


@pytest.mark.parametrize("unrelated", [0.0, 1.0])
def test_one_seed_gives_the_same_bytes_again(unrelated):
    config = replace(SMALL, unrelated=unrelated)
    for seed in (0, 3, 17, 1_000_000):
        first, second = scenes.make_example(config, seed), scenes.make_example(config, seed)
        for name in FIELDS:
            assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_what_was_drawn_before_does_not_matter():
    alone = scenes.make_example(SMALL, 5)
    _examples(SMALL, 4)
    assert scenes.make_example(SMALL, 5).frames.tobytes() == alone.frames.tobytes()


def test_seeds_differ():
    assert len({example.prior.tobytes() for example in _examples(SMALL, 20)}) == 20


def test_held_out_and_training_seeds_do_not_meet():
    assert scenes.FIRST_TRAINING_SEED not in scenes.HELD_OUT_SEEDS
    assert scenes.FIRST_TRAINING_SEED - 1 in scenes.HELD_OUT_SEEDS


@pytest.mark.parametrize("side, frames", [(32, 1), (64, 5), (200, 2)])
@pytest.mark.parametrize("unrelated", [0.0, 1.0])
def test_shapes_and_types(side, frames, unrelated):
    config = scenes.SceneConfig(side=side, frames=frames, unrelated=unrelated)
    for example in _examples(config, 6):
        assert example.prior.shape == (side, side, 3) and example.prior.dtype == np.uint8
        assert example.frames.shape == (frames, side, side, 3) and example.frames.dtype == np.uint8
        assert example.prior_mask.shape == (side, side) and example.prior_mask.dtype == bool
        assert example.masks.shape == (frames, side, side) and example.masks.dtype == bool
        assert example.prior_instances.shape == (side, side) and example.prior_instances.dtype == np.uint8
        assert example.frame_instances.shape == (frames, side, side)
        assert example.frame_instances.dtype == np.uint8


def test_masks_and_instances_agree():
    for example in _examples(SMALL, 40):
        assert np.array_equal(example.masks, example.frame_instances == scenes.OBJECT_ID)
        assert np.array_equal(example.prior_mask, example.prior_instances == scenes.OBJECT_ID)
        numbers = np.unique(example.prior_instances)
        assert np.array_equal(numbers, np.arange(len(numbers)))


def test_the_prior_shows_the_object_well(monkeypatch):
    painted = []
    paint = layout.paint_frame

    def watched(scene, t):
        result = paint(scene, t)
        painted.append((np.count_nonzero(result[1] == scenes.OBJECT_ID), result[2]))
        return result

    monkeypatch.setattr(layout, "paint_frame", watched)
    monkeypatch.setattr(camera, "paint_frame", watched)
    for unrelated in (0.0, 1.0):
        config = scenes.SceneConfig(side=96, frames=2, distractors=(4, 8), unrelated=unrelated, small=0.0)
        for seed in range(60):
            example = scenes.make_example(config, seed)
            seen, alone = painted[-1 - config.frames]  # the last image before the clip's
            assert seen == example.prior_mask.sum()
            assert seen >= 0.9 * alone
            assert seen >= 0.01 * config.side**2


def test_the_prior_has_other_things():
    examples = _examples(replace(SMALL, distractors=(2, 4)), 40)
    assert np.mean([example.prior_instances.max() >= 3 for example in examples]) > 0.9


@pytest.mark.parametrize("unrelated", [0.0, 1.0])
def test_absent_is_absent(unrelated):
    for example in _examples(replace(SMALL, absent=1.0, unrelated=unrelated), 15):
        assert not example.masks.any()
        assert example.prior_mask.any()


def test_present_is_nearly_always_seen():
    examples = _examples(replace(SMALL, absent=0.0), 150)
    assert np.mean([example.masks.any() for example in examples]) > 0.97


def test_share_of_absent_clips():
    examples = _examples(replace(SMALL, absent=0.5, side=32), 200)
    assert 0.38 < np.mean([not example.masks.any() for example in examples]) < 0.62


def test_occluders_hide_part_of_the_object():
    still = replace(SMALL, frames=6, absent=0.0, distractors=(0, 0), microscopy=0.0, **CLEAR)

    def hidden(occlusion):
        areas = [e.masks.sum((1, 2)) for e in _examples(replace(still, occlusion=occlusion), 40)]
        return np.mean([area.min() < 0.6 * area.max() for area in areas])

    assert hidden(1.0) > hidden(0.0) + 0.4


@pytest.mark.parametrize("unrelated", [0.0, 1.0])
def test_what_leaves_is_seen_before_or_after(unrelated):
    config = replace(SMALL, frames=8, absent=0.0, occlusion=0.0, unrelated=unrelated, leaving=1.0)
    seen = np.stack([example.masks.any((1, 2)) for example in _examples(config, 40)])
    assert np.mean(seen.any(1) & ~seen.all(1)) > 0.6
    assert np.mean(seen.any(1)) > 0.95
    assert all(example.prior_mask.any() for example in _examples(config, 10))


def test_leaving_at_zero_changes_nothing(monkeypatch):
    config = replace(SMALL, leaving=0.0)
    before = scenes.make_example(config, 11).frames
    monkeypatch.setattr(layout, "excursion", None)  # calling it would fail
    assert np.array_equal(scenes.make_example(config, 11).frames, before)


def test_nothing_moves_without_motion():
    config = replace(SMALL, motion=0.0, occlusion=0.0, leaving=0.0)
    for example in _examples(config, 10):
        assert np.array_equal(example.frame_instances[0], example.frame_instances[-1])


def test_objects_move():
    examples = _examples(replace(SMALL, absent=0.0, frames=4), 20)
    moved = [
        _box(e.masks[0]) != _box(e.masks[-1]) for e in examples if e.masks[0].any() and e.masks[-1].any()
    ]
    assert np.mean(moved) > 0.8


def test_unrelated_clips_have_another_ground_and_related_ones_the_same():
    def change(unrelated):
        config = replace(SMALL, unrelated=unrelated, microscopy=0.0, motion=0.3, **CLEAR)
        differences = []
        for example in _examples(config, 30):
            both = (example.prior_instances == 0) & (example.frame_instances[0] == 0)
            difference = example.prior[both].astype(float) - example.frames[0][both]
            differences.append(np.abs(difference).mean())
        return np.median(differences)

    assert change(0.0) < 15 < 40 < change(1.0)


def test_the_object_keeps_its_mean_colour_in_an_unrelated_clip():
    """Across things of all scenes, the object's colour in the clip is nearest to its own in the prior."""
    config = scenes.SceneConfig(side=64, frames=1, absent=0.0, occlusion=0.0, microscopy=0.0, **CLEAR)
    examples = [e for e in _examples(config, 60) if e.masks[0].sum() > 30]
    known = np.stack([e.prior[e.prior_mask].mean(0) for e in examples])
    found = np.stack([e.frames[0][e.masks[0]].mean(0) for e in examples])
    distance = np.linalg.norm(found[:, None] - known[None], axis=-1)
    rank = (distance < np.diag(distance)[:, None]).sum(1)
    assert np.median(rank) <= 0.15 * len(examples)


def test_objects_stand_out_from_the_ground():
    """The pixels on both sides of the edge differ, in prior and clip."""
    config = scenes.SceneConfig(side=96, frames=1, occlusion=0.0, absent=0.0, **CLEAR)
    gaps = []
    for example in _examples(config, 80):
        for image, ids in (
            (example.prior, example.prior_instances),
            (example.frames[0], example.frame_instances[0]),
        ):
            # Two pixels inside against two pixels outside, left and right, so that the soft edge is skipped.
            inner = (ids[:, 4:] == 1) & (ids[:, 2:-2] == 1) & (ids[:, :-4] == 0)
            if inner.sum() < 4:
                continue
            difference = image[:, 4:].astype(float)[inner] - image[:, :-4].astype(float)[inner]
            gaps.append(np.median(np.linalg.norm(difference, axis=1)))
    assert np.mean(np.array(gaps) < 25) < 0.03


def test_microscopy_is_gray_and_continues():
    for example in _examples(replace(SMALL, microscopy=1.0), 10):
        assert np.ptp(example.prior.astype(int), axis=-1).max() <= 1
        assert np.ptp(example.frames.astype(int), axis=-1).max() <= 1


def test_scale_is_kept():
    config = replace(
        SMALL, scale=(0.2, 0.3), absent=0.0, occlusion=0.0, distractors=(0, 0), motion=0.2, **CLEAR
    )
    for example in _examples(config, 25):
        diameter = 2 * np.sqrt(example.prior_mask.sum() / np.pi) / config.side
        assert 0.17 < diameter < 0.33


def test_no_distractors_and_many():
    none = _examples(replace(SMALL, distractors=(0, 0), occlusion=0.0, microscopy=0.0), 8)
    assert all(example.prior_instances.max() == 1 for example in none)
    many = _examples(replace(SMALL, distractors=(12, 12), microscopy=0.0), 4)
    assert all(example.frame_instances.max() >= 10 for example in many)


@pytest.mark.parametrize("kind", list(shapes.SHAPES))
def test_outlines_have_the_area_of_the_unit_disc(kind):
    for seed in range(5):
        outline = shapes.make_outline(kind, np.random.default_rng(seed).random(32))
        axis = np.linspace(-outline.reach, outline.reach, 300, dtype=np.float32)
        x, y = np.meshgrid(axis, axis)
        area = (outline.distance(x, y) > 0).mean() * (2 * outline.reach) ** 2
        assert area == pytest.approx(np.pi, rel=0.04)
        assert outline.reach < 3


def test_a_batch_stacks_examples():
    batch = scenes.make_batch(SMALL, [4, 9])
    assert set(batch) == set(FIELDS)
    assert batch["frames"].shape == (2, 3, 64, 64, 3)
    assert np.array_equal(batch["masks"][1], scenes.make_example(SMALL, 9).masks)


# ---- what the broader scenes add


def test_small_things_are_down_to_a_thirtieth_of_the_side():
    config = replace(SMALL, side=128, frames=1, small=1.0, microscopy=0.0, deform=0.0, effects=0.0)
    sizes = [2 * np.sqrt(e.prior_mask.sum() / np.pi) / 128 for e in _examples(config, 40)]
    assert 0.02 < min(sizes) < 0.08 and max(sizes) < 0.25


def test_things_are_up_to_six_tenths_of_the_side():
    sizes = [2 * np.sqrt(e.prior_mask.sum() / np.pi) / 64 for e in _examples(SMALL, 120)]
    assert max(sizes) > 0.45


def test_kept_out_families_are_drawn_only_where_they_are_named():
    facts = [e.facts for e in _examples(replace(SMALL, side=32, frames=1), 400)]
    assert not {f["shape"] for f in facts} & set(scenes.KEPT_OUT_SHAPES)
    assert not {f["texture"] for f in facts} & set(scenes.KEPT_OUT_TEXTURES)
    for names, field in ((scenes.KEPT_OUT_SHAPES, "shape"), (scenes.KEPT_OUT_TEXTURES, "texture")):
        config = replace(SMALL, side=32, frames=1, microscopy=0.0, **{field + "s": names})
        assert {e.facts[field] for e in _examples(config, 30)} == set(names)


def test_distractors_and_grounds_are_of_no_kept_out_family(monkeypatch):
    drawn = set()
    for name in (*scenes.KEPT_OUT_TEXTURES, "stripes"):
        monkeypatch.setitem(
            textures.PATTERNS,
            name,
            lambda x, y, d, name=name: drawn.add(name) or np.zeros(x.shape, np.float32),
        )
    _examples(replace(SMALL, side=32, distractors=(6, 6)), 60)
    assert drawn == {"stripes"}


def test_every_other_outline_and_pattern_is_drawn():
    facts = [e.facts for e in _examples(replace(SMALL, side=32, frames=1, microscopy=0.0), 450)]
    assert {f["shape"] for f in facts} == set(shapes.SHAPES) - set(scenes.KEPT_OUT_SHAPES)
    assert {f["texture"] for f in facts} == set(textures.PATTERNS) - set(scenes.KEPT_OUT_TEXTURES)


def _means(example):
    """Gray of the cell, of the ground around it, and of the ground elsewhere."""
    mask = example.prior_mask
    assert mask.any()
    near = np.zeros_like(mask)
    near[3:-3, 3:-3] = np.logical_or.reduce(
        [np.roll(mask, (dy, dx), (0, 1)) for dy in (-3, 0, 3) for dx in (-3, 0, 3)]
    )[3:-3, 3:-3]
    gray, ground = example.prior[..., 0].astype(float), example.prior_instances == 0
    return gray[mask].mean(), gray[near & ground].mean(), gray[~near & ground].mean()


def test_phase_contrast_cells_have_bright_halos_and_masks():
    config = replace(SMALL, side=128, microscopy=1.0, frames=1, occlusion=0.0, gray=0.0)
    found = 0
    for example in _examples(config, 40):
        cell, ring, ground = _means(example)
        found += cell < ground - 5 < ring - 10
    assert found >= 5


def test_bright_cells_have_dark_halos_where_that_is_wanted():
    config = replace(SMALL, side=128, microscopy=1.0, frames=1, occlusion=0.0, gray=0.0)
    dark = []
    for halos in (0.0, 1.0):
        means = [_means(example) for example in _examples(replace(config, halos=halos), 40)]
        dark.append(sum(cell > ground + 5 > ring + 10 for cell, ring, ground in means))
    assert dark[0] == 0 and dark[1] >= 10


def test_more_priors_show_the_object_in_other_places():
    for unrelated in (0.0, 1.0):
        config = replace(SMALL, priors=3, unrelated=unrelated, microscopy=0.0, occlusion=0.0)
        for example in _examples(config, 10):
            assert example.more_priors.shape == (2, 64, 64, 3) and example.more_priors.dtype == np.uint8
            assert example.more_prior_masks.shape == (2, 64, 64)
            assert example.more_prior_masks.any((1, 2)).all()
            if unrelated:
                assert not np.array_equal(example.more_prior_masks[0], example.prior_mask)


def test_hiding_covers_all_of_the_object_and_lets_it_return():
    config = replace(
        SMALL, frames=16, occlusion=1.0, hiding=1.0, absent=0.0, motion=0.5, microscopy=0.0, **CLEAR
    )
    seen = np.array([e.masks.any((1, 2)) for e in _examples(config, 30)])
    back = [bool((np.diff(row.astype(int)) == 1).any() and row[0]) for row in seen]
    assert np.mean(back) > 0.3
    never = replace(config, hiding=0.0)
    assert np.mean([e.masks.any((1, 2)).all() for e in _examples(never, 30)]) > 0.6


def test_gray_scenes_have_no_colour_and_others_have():
    spread = lambda e: np.ptp(e.frames.astype(int), axis=-1).max()  # noqa: E731
    gray = replace(SMALL, gray=1.0, microscopy=0.0, effects=0.0)
    assert max(spread(e) for e in _examples(gray, 8)) <= 1
    assert min(spread(e) for e in _examples(replace(gray, gray=0.0), 8)) > 20


def test_effects_change_images_but_not_what_they_show():
    config = replace(SMALL, microscopy=0.0, gray=0.0)
    lens = camera.Lens(blur=2, smear=(1, 0, 2), photons=0.1, levels=40, black=0.2, white=0.7)
    noise = np.random.default_rng(0).standard_normal((3, 64, 64)).astype(np.float32)
    light = np.random.default_rng(1).random((3, 64, 64)).astype(np.float32)
    seen = lens.look(light.copy(), False, noise)
    assert seen.shape == light.shape
    assert seen.mean() == pytest.approx(0.2 + 0.5 * light.mean(), abs=0.03)
    assert (
        np.abs(np.diff(camera.Lens(blur=2).look(light.copy(), False, noise))).mean()
        < 0.5 * np.abs(np.diff(light)).mean()
    )
    assert all(e.prior_mask.any() for e in _examples(replace(config, effects=2.0), 20))
