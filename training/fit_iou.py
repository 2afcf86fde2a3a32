"""Fit the head that predicts the IoU of a trained starter's masks to what it meets in tracking.

Training shows clips of a few frames. In longer ones a tracker looks at its own memories, good and bad, and the head
is too sure of what those vouch for. It also decides which of three masks is taken. So training clips of 24 frames are
tracked as users do it, what goes into the head is kept with the truth, and the head alone learns from that;
nothing else of the weights changes. A fifth of the clips is left out and says when to stop.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import evaluate
import feed
import numpy as np
import scenes
import torch
from export import write
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from train import choice_loss, set_rate

from napari_samexp.sam import load_model
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, record

HEAD = "iou_prediction_head"
FIRST = feed.FIRST_SEED + 200_000 * feed.SEEDS_A_STEP  # no run has come so far
LEFT_OUT = 0.2  # share of the clips
CLICK = 3.0  # what a click counts beside a tracked frame: there are three of them in a clip of 24


@dataclass
class Met:
    """What went into the head, and the truth, of N decoded frames and clicks.

    Attributes
    ----------
    tokens : Tensor, shape (N, D)
    truth : Tensor, shape (N, 4)
        IoU of each mask with the object.
    tracked : Tensor, shape (N,), bool
        Whether it is a frame of a clip, not a click.
    several : Tensor, shape (N,), bool
        Whether one of the masks from the second on is taken.
    clip : Tensor, shape (N,), int
    """

    tokens: Tensor
    truth: Tensor
    tracked: Tensor
    several: Tensor
    clip: Tensor

    def part(self, rows: Tensor) -> Met:
        return Met(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @staticmethod
    def joined(parts: Sequence[Met]) -> Met:
        return Met(*(torch.cat([getattr(part, name) for part in parts]) for name in Met.__dataclass_fields__))


def overlaps(masks: Tensor, truth: np.ndarray) -> Tensor:
    """(4, h, w) logits and an (H, W) mask to their (4,) IoU at the mask's size."""
    large = functional.interpolate(masks[None].float(), truth.shape, mode="bilinear", align_corners=False)[0]
    return torch.tensor([evaluate.jaccard(mask, truth) for mask in (large > 0).numpy()])


def met_in(model: Any, example: scenes.Example, clip: int, settings: TrackSettings) -> Met:
    """Click on the prior picture of one example, track its clip and return what the head met.

    Frames that do not show the object have no IoU.
    """
    decoder, seen, decoded = model.sam_mask_decoder, [], []
    hooks = (
        getattr(decoder, HEAD).register_forward_hook(lambda _, given, __: seen.append(given[0].float()[0])),
        decoder.register_forward_hook(lambda _, __, out: decoded.append(out.masks[0])),
    )
    rows: list[tuple[Tensor, Tensor, bool, bool]] = []
    try:
        features = model.encode(example.prior, side=settings.side)
        rng = np.random.default_rng(clip)
        for prompt, prediction in evaluate.clicked(model, features, example.prior_mask, rng):
            several = len(prompt.points_xy) == 1
            rows.append((seen[-1], overlaps(decoded[-1], example.prior_mask), False, several))
            last = prompt, prediction
        prior = PriorMemory().with_recording(*record(model, example.prior, features, *last))
        tracker = Tracker(model, prior, settings)
        for t, (frame, mask) in enumerate(zip(example.frames, example.masks)):
            tracker.step(frame, t)
            if mask.mean() > evaluate.VISIBLE:
                rows.append((seen[-1], overlaps(decoded[-1], mask), True, True))
    finally:
        for hook in hooks:
            hook.remove()
    tokens, truth, tracked, several = zip(*rows)
    return Met(torch.stack(tokens), torch.stack(truth), torch.tensor(tracked), torch.tensor(several),
               torch.full((len(rows),), clip))  # fmt: skip


def met_in_clips(
    weights: str, config: scenes.SceneConfig, clips: Sequence[int], settings: TrackSettings
) -> Met:
    """Return what the head met in some clips, seen by one thread of this process."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model = load_model(weights, device="cpu")
    return Met.joined(
        [met_in(model, scenes.make_example(config, FIRST + clip), clip, settings) for clip in clips]
    )


def loss_of(iou: Tensor, met: Met) -> Tensor:
    """Return the loss of N predicted IoUs (N, 4): their errors, the taken mask's most, and which one is taken."""
    choice = torch.where(met.several, 1 + iou.detach()[:, 1:].argmax(1), 0)
    errors, weight = (iou - met.truth).abs(), torch.where(met.tracked, 1.0, CLICK)
    missed = choice_loss(iou, met.truth) * met.several
    each = errors[torch.arange(len(iou)), choice] + 0.3 * errors.mean(1) + 0.5 * missed
    return (each * weight).sum() / weight.sum()


def figures(iou: Tensor, met: Met) -> dict[str, float]:
    """Return what predicted IoUs (N, 4) are worth."""
    choice = 1 + iou[:, 1:].argmax(1)
    rows = torch.arange(len(iou))
    truth, error = met.truth[rows, choice], (iou - met.truth)[rows, choice].abs()
    best = met.truth[:, 1:].amax(1)
    said = {}
    for name, some in (("tracked", met.tracked), ("one click", ~met.tracked & met.several)):
        parts = {"error": error, "J of the taken": truth, "J of the best": best}
        said |= {f"{name}, {part}": float(values[some].mean()) for part, values in parts.items()}
    return said


def fitted(head: nn.Module, met: Met, epochs: int = 30, lr: float = 3e-4) -> nn.Module:
    """Return the head, trained as long as it helps the clips that are left out; print what that changes in them."""
    clips = met.clip.unique()
    left_out = torch.isin(met.clip, clips[: max(1, round(LEFT_OUT * len(clips)))])
    here, there = met.part(~left_out), met.part(left_out)
    head = copy.deepcopy(head).float().requires_grad_()
    optimiser = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.05)
    shuffle = torch.Generator().manual_seed(0)
    best, lowest = copy.deepcopy(head), float("inf")

    def tell(word: str, now: nn.Module) -> None:
        with torch.no_grad():
            said = figures(now(there.tokens).sigmoid(), there)
        print(json.dumps({"head": word} | {name: round(x, 4) for name, x in said.items()}), flush=True)

    tell("before", head)
    for epoch in range(epochs + 1):
        with torch.no_grad():
            now = float(loss_of(head(there.tokens).sigmoid(), there))
        if now < lowest:
            best, lowest = copy.deepcopy(head), now
        if epoch == epochs:
            break
        set_rate([optimiser], lr * (1 - epoch / epochs))
        for rows in torch.randperm(len(here.clip), generator=shuffle).split(512):
            optimiser.zero_grad()
            loss_of(head(here.tokens[rows]).sigmoid(), here.part(rows)).backward()
            optimiser.step()
    tell("after", best)
    return best


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="safetensors that training/export.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--first-clip", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    args = parse(words)
    config = scenes.SceneConfig(side=256, frames=args.frames)
    # half of the clips with more of what is rare: nothing to be found, and returns
    rare = replace(config, absent=0.25, occlusion=0.6, hiding=0.6)
    jobs = [
        (
            args.weights,
            rare if k % 2 else config,
            range(args.first_clip + 4 * k, args.first_clip + 4 * k + 4),
            TrackSettings(),
        )
        for k in range(-(-args.clips // 4))
    ]
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        met = Met.joined(pool.starmap(met_in_clips, jobs, chunksize=1))
    head = fitted(getattr(load_model(args.weights, device="cpu").sam_mask_decoder, HEAD), met)
    with safe_open(args.weights, "pt") as file:
        notes = file.metadata()
    weights = load_file(args.weights)
    for key, value in head.state_dict().items():
        name = f"sam_mask_decoder.{HEAD}.{key}"
        weights[name] = value.to(weights[name].dtype)
    write(weights, args.out, notes)


if __name__ == "__main__":
    main()
