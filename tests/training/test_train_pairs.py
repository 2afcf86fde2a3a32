"""The training that looks for every thing of a picture."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

SIDE = 64
NONE = (0.0, 0.0)  # shares of line-ups, while the encoder learns alone and later


@pytest.fixture(scope="module")
def pairs(parts):
    return parts["train_pairs"]


@pytest.fixture
def small(pairs, monkeypatch, on_cpu):
    """Steps with small pictures: a single frame, and a clip every second time; or line-ups alone."""

    def at(cls, step, clips, lineups):
        return cls(SIDE, SIDE, 1, True) if lineups == 1 else cls(SIDE, SIDE, 3 if clips and step % 2 else 1)

    monkeypatch.setattr(pairs.Kind, "at", classmethod(at))


def tokens_of(things, seed=0):
    """Return tokens (1, 8, h, w) of length one that depend on the thing at each place alone."""
    table = functional.normalize(torch.randn(9, 8, generator=torch.Generator().manual_seed(seed)), dim=1)
    return table[torch.from_numpy(things).long()][None].permute(0, 3, 1, 2)


def picture(*corners):
    """Return (16, 16) numbers of things: a square of four for each corner given."""
    things = np.zeros((16, 16), np.uint8)
    for number, (y, x) in enumerate(corners, 1):
        things[y : y + 4, x : x + 4] = number
    return things


def test_things_have_one_number_in_all_pictures(parts, pairs):
    scenes = parts["scenes"]
    config, both, differ, strangers = replace(pairs.SCENE, side=SIDE, microscopy=0.0), 0, 0, 0
    for seed in range(500, 540):
        pictures, things = scenes.make_shared(config, seed, 2)
        assert pictures.shape == (3, SIDE, SIDE, 3) and pictures.dtype == np.uint8
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
    assert np.array_equal(again[0], pictures) and np.array_equal(again[1], things)


def test_a_thing_keeps_its_surface_from_the_picture_to_the_clip(parts, pairs):
    """In colour without other light, a thing's mean colour is nearer to its own than to another's."""
    scenes = parts["scenes"]
    config = replace(pairs.SCENE, side=SIDE, microscopy=0.0, appearance=0.0, effects=0.0, gray=0.0, hard=0.0)
    right = []
    for seed in range(600, 640):
        pictures, things = scenes.make_shared(config, seed)
        large = [k for k in range(1, 7) if min((things == k).sum((1, 2))) > 40]
        means = [[p[t == k].mean(0) for k in large] for p, t in zip(pictures.astype(float), things)]
        for k in range(len(large)):
            far = [np.linalg.norm(means[1][k] - other) for other in means[0]]
            right.append(int(np.argmin(far)) == k)
    assert len(right) > 60 and np.mean(right) > 0.9


def test_cells_go_on_from_the_picture(parts, pairs):
    pictures, things = parts["scenes"].make_shared(replace(pairs.SCENE, side=SIDE, microscopy=1.0), 7, 3)
    assert pictures.shape[0] == 4
    shared = set(np.unique(things[0])) & set(np.unique(things[1])) - {0}
    assert len(shared) >= 2
    for k in shared:  # each moves a little only
        at = [np.argwhere(things[t] == k).mean(0) for t in (0, 1)]
        assert np.linalg.norm(at[0] - at[1]) < SIDE / 3


def test_a_line_up_shows_nine_things_twice(parts, pairs):
    scenes, all_shown, kinds_seen = parts["scenes"], 0, set()
    for seed in range(700, 720):
        pictures, things, kinds = scenes.make_lineup(replace(pairs.SCENE, side=SIDE), seed)
        assert pictures.shape == (2, SIDE, SIDE, 3) and pictures.dtype == np.uint8
        assert things.shape == (2, SIDE, SIDE) and things.max() <= scenes.LINEUP
        assert kinds.shape == (1 + scenes.LINEUP,) and kinds[0] == -1 and kinds[1:].min() >= 0
        assert len(set(kinds[1:])) in (3, 9)  # all of one surface, or three of each of three
        all_shown += sum(len(np.unique(each)) == 10 for each in things)
        kinds_seen |= set(kinds[1:])
    assert all_shown > 20  # others lie outside, or under others
    assert len(kinds_seen) > 15
    assert not {"heart", "pinwheel"} & set(scenes.KINDS)
    again = scenes.make_lineup(replace(pairs.SCENE, side=SIDE), 719)
    assert all(np.array_equal(a, b) for a, b in zip(again, (pictures, things, kinds), strict=True))


def test_the_number_of_a_thing_says_its_outline(parts, pairs):
    """Rings and their like are hollow in both pictures, wherever they are."""
    scenes, hollow = parts["scenes"], []
    plain = dict.fromkeys(("appearance", "effects", "deform", "small"), 0.0)
    for seed in range(40):
        _, things, kinds = scenes.make_lineup(replace(pairs.SCENE, side=128, **plain), seed)
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


def test_likeness_is_lost_where_things_are_mistaken(pairs):
    known, seen = picture((0, 0), (8, 8)), picture((4, 8), (10, 0))
    there = [pairs.shares(torch.from_numpy(each)[None], 16) for each in (known, seen)]
    right = pairs.likeness_loss(tokens_of(known), there[0], tokens_of(seen), there[1])
    swapped = np.array([0, 2, 1], np.uint8)[seen]
    wrong = pairs.likeness_loss(tokens_of(known), there[0], tokens_of(swapped), there[1])
    assert right < 0.2
    assert wrong > right + 1


def test_a_thing_that_is_not_known_counts_as_ground(pairs):
    # the second lies outside of the first picture
    known, seen = picture((0, 0), (16, 16)), picture((4, 8), (10, 0))
    there = [pairs.shares(torch.from_numpy(each)[None], 16) for each in (known, seen)]
    there[0] = functional.pad(there[0], (0, 0, 0, 0, 0, there[1].shape[1] - there[0].shape[1]))
    apart = pairs.likeness_loss(tokens_of(known), there[0], tokens_of(seen), there[1])
    alike = np.array([0, 1, 1], np.uint8)[seen]  # it looks like the one that is known
    same = pairs.likeness_loss(tokens_of(known), there[0], tokens_of(alike), there[1])
    assert apart < 0.2
    assert same > apart + 0.3


def test_things_of_other_scenes_are_no_match(pairs):
    """The same tokens in two scenes cannot be told from one another, and that costs."""
    things = np.stack([picture((0, 0)), picture((8, 8))])
    there = pairs.shares(torch.from_numpy(things), 16)
    differ = torch.cat((tokens_of(things[0]), tokens_of(things[1], seed=1)))
    alike = torch.cat((tokens_of(things[0]), tokens_of(things[1])))
    assert (
        pairs.likeness_loss(alike, there, alike, there)
        > pairs.likeness_loss(differ, there, differ, there) + 0.05
    )


def test_memory_may_change_what_it_keeps_more_than_the_rest(pairs, train):
    model = train.Starter()
    train.initialise(model, 0)
    torch.manual_seed(1)
    before = (torch.randn(2, 128, 4, 4), (torch.randn(2, 32, 16, 16), torch.randn(2, 16, 8, 8)))
    basis = torch.linalg.qr(pairs.memory_part(model.sam).T)[0]
    assert pairs.change_loss(basis, before, before) == 0
    step = torch.randn(2, 128, 4, 4)
    inside = torch.einsum("ndhw,de,fe->nfhw", step, basis, basis)
    outside = step - inside
    inside, outside = (each * 4 / each.norm() for each in (inside, outside))
    moved = [pairs.change_loss(basis, (before[0] + each, before[1]), before) for each in (inside, outside)]
    # sixty times the weight, and of the variance 24 parts of 128 in place of 104
    assert 0 < moved[0] < moved[1] / 10


def test_what_is_asked_are_things_of_the_scenes(parts, pairs, small):
    drawing = pairs.Drawing(2, 0.5, NONE, 0, 0)
    batch = drawing.draw(1, 1)
    scenes = len(batch["things"])
    assert batch["pictures"].shape[1] == batch["things"].shape[1] == 4
    rows, counts = batch["rows"], batch["count"]
    assert len(rows) > scenes and set(rows) <= set(range(scenes)) and np.bincount(rows).max() == 3
    assert batch["asked"].all()
    asked = set()
    for row, truth, points, labels, count in zip(
        rows, batch["truth"], batch["points"], batch["labels"], counts
    ):
        inside = points[:count][labels[:count] == 1].astype(int)
        numbers = {int(batch["things"][row, 0, y, x]) for x, y in inside}
        if not numbers:
            continue  # a box
        (number,) = numbers
        assert number and (row, number) not in asked
        asked.add((row, number))
        assert np.array_equal(truth, parts["prompts"].covered(batch["things"][row] == number))
    assert len(asked) > scenes / 2
    shown = batch["truth"][:, 1:].sum((2, 3)) / SIDE**2
    assert np.array_equal(batch["present"], shown > parts["prompts"].SURE)
    assert batch["sure"][shown == 0].all()


def test_pictures_without_a_thing_that_is_large_enough_ask_nothing(pairs, train):
    nothing = {
        "pictures": np.zeros((2, 2, SIDE, SIDE, 3), np.uint8),
        "things": np.zeros((2, 2, SIDE, SIDE), np.uint8),
    }
    batch = pairs.Drawing(2, 0.5, NONE, 0, 0).asked(nothing, 0)
    assert batch["truth"].shape == (0, 2, SIDE // 4, SIDE // 4) and batch["points"].shape == (0, 3, 2)
    model = train.Starter()
    train.initialise(model, 0)
    here = train.to_device(batch, torch.device("cpu"))
    losses = pairs.step_losses(model, None, here, [], False)
    losses.total.backward()
    assert set(losses.figures) == {"likeness"}


def test_what_is_looked_for_stays_on_its_device(pairs, train, small):
    """As in `test_recipe.py`: tensors without data tell whether two devices are mixed."""
    away = torch.device("meta")
    model, before = train.Starter().to(away), train.Starter().to(away)
    drawn = pairs.Drawing(1, 0.5, NONE, 0, 0).draw(1, 1)
    batch = train.to_device(drawn, away)
    shape = batch["things"].shape
    groups = train.by_count(drawn["count"], np.random.default_rng(0), away)
    pixels = train.to_pixels(batch["pictures"], shape[-1])
    now, was = model.sam.image_features(pixels), before.sam.image_features(pixels)
    features = now[0].unflatten(0, shape[:2]), tuple(x.unflatten(0, shape[:2]) for x in now[1])
    losses = train.Losses(torch.zeros((), device=away), {})
    losses.add("change", pairs.change_loss(pairs.memory_part(model.sam).T, now, was))
    pairs.found_losses(losses, model, batch, features, groups)
    losses.total.backward()
    assert {figure.device for figure in losses.figures.values()} == {away}
    assert {"change", "track_mask", "recent_mask"} <= set(losses.figures)


def test_processes_draw_other_scenes_of_a_step(pairs, small):
    """Even where they would take more seeds than a step has."""
    drawn = [pairs.Drawing(10, 0.5, NONE, 0, 0, (place, 2)).scenes(0, 1)["pictures"] for place in (0, 1)]
    following = pairs.Drawing(10, 0.5, NONE, 0, 0, (0, 2)).scenes(1, 1)["pictures"]
    seen = [picture.tobytes() for each in (*drawn, following) for picture in each[:, 0]]
    assert len(drawn[0]) == len(drawn[1]) == 128
    assert len(set(seen)) == len(seen)


def test_outlines_are_said_from_what_shows_them(pairs, train):
    """Features that are the kind of each thing are read after some steps, and those that say nothing are not."""
    torch.manual_seed(0)
    model = pairs.Starter()
    train.initialise(model, 0)
    things = torch.from_numpy(np.stack([picture((0, 0), (8, 8)), picture((4, 8), (10, 0))]))
    kinds = torch.tensor([[-1, 3, 7], [-1, 3, 7]])
    table = torch.randn(3, 128)
    means = {}
    for name, features in {"telling": table[things.long()], "alike": torch.ones(2, 16, 16, 128)}.items():
        learning = torch.optim.AdamW([p for part in (model.by_token, model.pooled, model.kept)
                                      for p in part.parameters()], lr=1e-2)  # fmt: skip
        for _ in range(30):
            losses = train.Losses(torch.zeros(()), {})
            model.outlines(losses, features.permute(0, 3, 1, 2), things, kinds)
            learning.zero_grad()
            losses.total.backward()
            learning.step()
        means[name] = losses.figures
    for name in ("outline", "outline_kept", "outline_whole"):
        assert means["telling"][name] < 0.2
        assert means["alike"][name] > 0.6  # one of two, at best
    assert means["telling"]["outline_right"] == 1


def settings(pairs, parts, run, *words):
    start = str(parts["export"].BUNDLED)
    fixed = ["--run", str(run), "--start", start, "--pairs", "1", "--every", "1", "--lr", "1e-3"]
    return pairs.parse([*fixed, "--lineups", "0", "0", *words])


def weights(run):
    return torch.load(run / "state.pt", weights_only=True)["model"]


def test_the_encoder_learns_alone_and_then_everything(pairs, parts, train, small, tmp_path):
    model = train.Starter()
    train.load_exported(model, parts["export"].BUNDLED)
    begun = {key: value.clone() for key, value in model.state_dict().items()}
    pairs.fit(settings(pairs, parts, tmp_path, "--steps", "2", "--alone", "1"), 0, 1)
    after = weights(tmp_path)
    changed = {key for key in begun if key.startswith("sam.") and not torch.equal(begun[key], after[key])}
    encoding = ("sam.image_encoder.", "sam.sam_mask_decoder.conv_s")
    assert changed and all(key.startswith(encoding) for key in changed)

    pairs.fit(settings(pairs, parts, tmp_path, "--steps", "4", "--alone", "0.5"), 0, 1)  # goes on
    later = weights(tmp_path)
    changed = {key for key in after if not torch.equal(after[key], later[key])}
    assert any(key.startswith("sam.memory_attention.") for key in changed)
    assert any(key.startswith("sam.sam_mask_decoder.transformer.") for key in changed)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all("change" in line and "track_mask" not in line for line in lines[:2])
    assert all("track_mask" in line and "likeness" in line for line in lines[2:])
    assert any("recent_mask" in line for line in lines[2:])  # a clip was among them
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    exported = tmp_path / "out.safetensors"
    parts["export"].write(
        {k: v.half() for k, v in parts["export"].averaged(tmp_path / "state.pt", model.sam).items()},
        exported,
        {},
    )
    assert exported.stat().st_size < 9e6


def test_line_ups_teach_the_outlines_and_what_they_show_is_looked_for(pairs, parts, small, tmp_path):
    words = ["--steps", "4", "--alone", "0.5", "--lineups", "1", "1"]
    pairs.fit(settings(pairs, parts, tmp_path, *words), 0, 1)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all({"likeness", "outline", "outline_kept", "outline_whole"} <= set(line) for line in lines)
    assert all("track_mask" in line for line in lines[2:])
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    begun = pairs.Starter()
    assert set(begun.state_dict()) == set(state["model"])
    exported = parts["export"].averaged(tmp_path / "state.pt", begun.sam)
    assert set(exported) == set(begun.sam.state_dict())  # what says the kinds stays here
