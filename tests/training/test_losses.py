"""Losses of decoded masks and of features, and what is remembered."""

import numpy as np
import torch
from torch.nn import functional

from napari_samexp.sam.mask_decoder import Decoded
from napari_samexp.sam.variants import MAX_POINTERS, PRIOR_SLOT
from training import features
from training.losses import Losses, decoded_loss
from training.memory import Remembered
from training.model import Starter, initialise, memory_projection


def test_the_mask_that_will_be_taken_learns_also_where_another_is_better():
    target = torch.zeros(1, 8, 8)
    target[:, :4] = 1
    logits = torch.zeros(1, 4, 8, 8)
    logits[:, 1], logits[:, 2:] = target * 4 - 2, 2 - target * 4
    logits.requires_grad_()
    iou = torch.tensor([[0.0, 0.1, 0.9, 0.2]])  # the second is trusted, the first is right
    decoded = Decoded(logits, iou, torch.zeros(1, 4, 2), torch.zeros(1))
    losses = Losses(torch.zeros(()))
    there = torch.ones(1, dtype=torch.bool)
    decoded_loss(losses, "track", decoded, target, there, there)
    losses.figures.clear()
    losses.total.backward()
    trusted, neither = logits.grad[0, 2].abs().sum(), logits.grad[0, 3].abs().sum()
    assert trusted > 5 * neither > 0  # both are as wrong


def test_the_best_mask_shall_be_taken():
    target = torch.zeros(1, 8, 8)
    target[:, :4] = 1
    logits = (target * 4 - 2)[:, None] * torch.tensor([1.0, 1.0, -1.0, -1.0]).reshape(1, 4, 1, 1)
    iou = torch.tensor(
        [[0.5, 0.8, 0.9, 0.2]], requires_grad=True
    )  # the first is right, the second would be taken
    there = torch.ones(1, dtype=torch.bool)
    grads = {}
    for name in ("track", "click_2"):
        losses = Losses(torch.zeros(()))
        decoded_loss(losses, name, Decoded(logits, iou, torch.zeros(1, 4, 2), torch.zeros(1)), target,
                           there, there)  # fmt: skip
        assert (f"{name}_choice" in losses.figures) == (name == "track")  # several points have one mask
        grads[name] = torch.autograd.grad(losses.total, iou)[0][0]
    more = grads["track"] - grads["click_2"]
    assert more[1] < 0 < more[2] and abs(more[3]) < 0.1 * more[2]


def test_the_bank_passes_over_lost_frames_and_falls_back_on_the_prior():
    past = [
        (torch.full((2, 1, 1, 1), float(t)), torch.full((2, 4), float(t)), torch.tensor([t != 2, False]))
        for t in (1, 2, 3)
    ]
    state = Remembered([torch.full((2, 1, 1, 1), -1.0)], torch.full((2, 1, 4), -1.0), None, past)
    spatial, slots, pointers, times = state.bank(2)
    assert [float(part[0]) for part in spatial] == [-1, 3, 1]  # the second frame lost the object
    assert [float(part[1]) for part in spatial] == [-1, -1, -1]
    assert slots.tolist() == [[PRIOR_SLOT, 0, 1], [PRIOR_SLOT] * 3]
    assert pointers[0, :, 0].tolist() == [-1, 3, 1]
    assert (times * MAX_POINTERS)[0].round().tolist() == [1, 1, 3]


def tokens_of(things, seed=0):
    """Return tokens (1, 8, h, w) of length one that depend on the thing at each place alone."""
    table = functional.normalize(torch.randn(9, 8, generator=torch.Generator().manual_seed(seed)), dim=1)
    return table[torch.from_numpy(things).long()][None].permute(0, 3, 1, 2)


def image_of(*corners):
    """Return (16, 16) numbers of things: a square of four for each corner given."""
    things = np.zeros((16, 16), np.uint8)
    for number, (y, x) in enumerate(corners, 1):
        things[y : y + 4, x : x + 4] = number
    return things


def test_likeness_is_lost_where_things_are_mistaken():
    known, seen = image_of((0, 0), (8, 8)), image_of((4, 8), (10, 0))
    there = [features.shares(torch.from_numpy(each)[None], 16) for each in (known, seen)]
    right = features.likeness_loss(tokens_of(known), there[0], tokens_of(seen), there[1])
    swapped = np.array([0, 2, 1], np.uint8)[seen]
    wrong = features.likeness_loss(tokens_of(known), there[0], tokens_of(swapped), there[1])
    assert right < 0.2
    assert wrong > right + 1


def test_a_thing_that_is_not_known_counts_as_ground():
    # the second lies outside of the first image
    known, seen = image_of((0, 0), (16, 16)), image_of((4, 8), (10, 0))
    there = [features.shares(torch.from_numpy(each)[None], 16) for each in (known, seen)]
    there[0] = functional.pad(there[0], (0, 0, 0, 0, 0, there[1].shape[1] - there[0].shape[1]))
    apart = features.likeness_loss(tokens_of(known), there[0], tokens_of(seen), there[1])
    alike = np.array([0, 1, 1], np.uint8)[seen]  # it looks like the one that is known
    same = features.likeness_loss(tokens_of(known), there[0], tokens_of(alike), there[1])
    assert apart < 0.2
    assert same > apart + 0.3


def test_things_of_other_scenes_are_no_match():
    """The same tokens in two scenes cannot be told from one another, and that costs."""
    things = np.stack([image_of((0, 0)), image_of((8, 8))])
    there = features.shares(torch.from_numpy(things), 16)
    differ = torch.cat((tokens_of(things[0]), tokens_of(things[1], seed=1)))
    alike = torch.cat((tokens_of(things[0]), tokens_of(things[1])))
    assert (
        features.likeness_loss(alike, there, alike, there)
        > features.likeness_loss(differ, there, differ, there) + 0.05
    )


def test_memory_may_change_what_it_keeps_more_than_the_rest():
    model = Starter()
    initialise(model, 0)
    torch.manual_seed(1)
    before = (torch.randn(2, 128, 4, 4), (torch.randn(2, 32, 16, 16), torch.randn(2, 16, 8, 8)))
    basis = torch.linalg.qr(memory_projection(model.sam).T)[0]
    assert features.change_loss(basis, before, before) == 0
    step = torch.randn(2, 128, 4, 4)
    inside = torch.einsum("ndhw,de,fe->nfhw", step, basis, basis)
    outside = step - inside
    inside, outside = (each * 4 / each.norm() for each in (inside, outside))
    moved = [features.change_loss(basis, (before[0] + each, before[1]), before) for each in (inside, outside)]
    # sixty times the weight, and of the variance 24 parts of 128 in place of 104
    assert 0 < moved[0] < moved[1] / 10


def test_outlines_are_said_from_what_shows_them():
    """Features that are the kind of each thing are read after some steps, and those that say nothing are not."""
    torch.manual_seed(0)
    model = Starter()
    initialise(model, 0)
    things = torch.from_numpy(np.stack([image_of((0, 0), (8, 8)), image_of((4, 8), (10, 0))]))
    kinds = torch.tensor([[-1, 3, 7], [-1, 3, 7]])
    table = torch.randn(3, 128)
    means = {}
    for name, embedding in {"telling": table[things.long()], "alike": torch.ones(2, 16, 16, 128)}.items():
        learning = torch.optim.AdamW([p for part in (model.by_token, model.pooled, model.kept)
                                      for p in part.parameters()], lr=1e-2)  # fmt: skip
        for _ in range(30):
            losses = Losses(torch.zeros(()))
            features.outline_losses(losses, model, embedding.permute(0, 3, 1, 2), things, kinds)
            learning.zero_grad()
            losses.total.backward()
            learning.step()
        means[name] = losses.figures
    for name in ("outline", "outline_kept", "outline_whole"):
        assert means["telling"][name] < 0.2
        assert means["alike"][name] > 0.6  # one of two, at best
    assert means["telling"]["outline_right"] == 1
