"""Prompts that are drawn by tensors."""

from collections import Counter

import pytest
import torch

from training import prompts


@pytest.fixture
def masks():
    """A disc, a bar one pixel wide, a full image and one pixel."""
    y, x = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    disc = (x - 40) ** 2 + (y - 20) ** 2 < 100
    return torch.stack((disc, y == 7, y >= 0, (x == 63) & (y == 47)))


def values_at(masks, points):
    """What masks (N, H, W) are at their points (N, K, 2)."""
    x, y = points.long().unbind(2)
    return torch.stack([mask[b, a] for mask, a, b in zip(masks, x, y)])


def test_clicks_are_on_the_side_that_their_label_says(masks):
    many = masks.repeat(100, 1, 1)
    points, labels = prompts.draw_clicks(many)
    assert torch.equal(values_at(many, points), labels.bool())
    assert labels[:, 0].all() and labels[2::4].all()
    assert 0.2 < (labels[::4, 1:] == 0).float().mean() < 0.4


def test_random_places_are_spread_over_the_whole_mask(masks):
    counted = masks.flatten(1).int().cumsum(1, dtype=torch.int32)
    places = prompts.random_places(counted, 4000)
    seen = [set(row.tolist()) for row in places]
    assert seen[3] == {48 * 64 - 1}
    assert seen[1] == set(range(7 * 64, 8 * 64))
    x, y = (places[0] % 64).float(), (places[0] // 64).float()
    assert abs(x.mean() - 40) < 0.5 and abs(y.mean() - 20) < 0.5
    assert ((x - 40).hypot(y - 20)).mean() == pytest.approx(20 / 3, abs=0.3)


def test_the_deepest_of_some_places_is_chosen(masks):
    disc = masks[:1]
    places = torch.tensor([[[20 * 64 + 31, 20 * 64 + 41, 12 * 64 + 40]]])
    assert prompts.deepest(disc, disc.sum((1, 2)), places).tolist() == [[20 * 64 + 41]]
    points = prompts.draw_clicks(disc.repeat(300, 1, 1))[0][:, 0]
    far = (points - torch.tensor([40.0, 20.0])).norm(dim=1)
    assert far.mean() < 6.2  # points spread evenly are 6.7 away from the middle; six of ten are deep ones


def test_boxes_are_around_the_thing(masks):
    boxes = prompts.draw_boxes(masks.repeat(50, 1, 1))
    disc = torch.tensor([[31.0, 11.0], [49.0, 29.0]])
    assert (boxes[::4] - disc).abs().max() <= 1.95
    assert (boxes[::4].std(0) > 0.5).all()
    assert torch.equal(boxes[2::4].clamp(min=0), boxes[2::4])
    assert (boxes[3::4] - torch.tensor([63.0, 47.0])).abs().max() <= 0.11


def test_kinds_of_prompts_have_their_shares():
    counts = Counter(prompts.draw_kinds(200).tolist())
    assert counts == {1: 100, 2: 14, 3: 26, 4: 30, 5: 30}
    assert sum(Counter(prompts.draw_kinds(7).tolist()).values()) == 7


def test_a_corrective_click_is_in_the_largest_error():
    target, logits = torch.zeros(2, 16, 16), torch.full((2, 16, 16), -5.0)
    target[:, 2:12, 2:12] = 1
    logits[0, 2:12, 2:6] = 5  # most of the thing is missed
    logits[1, 2:12, 2:12] = 5
    logits[1, 2:12, 12:16] = 5  # four columns too many
    xy, label = prompts.corrective_click(logits, target)
    assert label[:, 0].tolist() == [1, 0]
    x, y = xy[0, 0].tolist()
    assert 6 * 4 <= x < 12 * 4 and 2 * 4 <= y < 12 * 4
    assert 12 * 4 <= xy[1, 0, 0] < 16 * 4


def test_a_corrective_click_on_a_right_mask_is_inside():
    target = torch.zeros(1, 8, 8)
    target[:, 3:6, 3:6] = 1
    xy, label = prompts.corrective_click(target * 10 - 5, target)
    assert label.item() == 1
    assert 12 <= xy[0, 0, 0] < 24 and 12 <= xy[0, 0, 1] < 24
