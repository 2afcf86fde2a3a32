"""Fit the two small heads of a trained starter, predicted IoU and presence, to what they meet in tracking.

Training shows clips of a few frames. In longer ones a tracker looks at its own memories, good and bad, and both
heads are too sure of what those vouch for. So training clips of 24 frames are tracked as users do it, what goes into
the heads is kept with the truth, and the heads alone learn from that; nothing else of the weights changes. A fifth of
the clips is left out and says when to stop.
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
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from train import SHARPNESS

from napari_samexp.sam import load_model
from napari_samexp.tracking import PriorMemory, Tracker, TrackSettings, record

HEADS = ("iou_prediction_head", "pred_obj_score_head")
FIRST = feed.FIRST_SEED + 200_000 * feed.SEEDS_A_STEP  # no run has come so far
LEFT_OUT = 0.2  # share of the clips
CLICK = 3.0  # what a click counts beside a tracked frame: there are three of them in a clip of 24


@dataclass
class Met:
    """What went into the heads, and the truth, of N decoded frames and clicks.

    Attributes
    ----------
    tokens : Tensor, shape (N, 2, D)
        For the predicted IoU and for presence.
    truth : Tensor, shape (N, 4)
        IoU of each mask with the object.
    there : Tensor, shape (N,)
        1 where the object is visible, 0 where nothing of it shows, -1 between.
    weight : Tensor, shape (N,)
    several : Tensor, shape (N,), bool
        Whether one of the masks from the second on is taken.
    clip : Tensor, shape (N,), int
    """

    tokens: Tensor
    truth: Tensor
    there: Tensor
    weight: Tensor
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
    """Click on the prior picture of one example, track its clip and return what the heads met."""
    decoder, seen, decoded = model.sam_mask_decoder, {}, []
    hooks = [
        getattr(decoder, head).register_forward_hook(
            lambda _, given, __, head=head: seen.update({head: given[0].detach().float()[0]})
        )
        for head in HEADS
    ]
    hooks.append(decoder.register_forward_hook(lambda _, __, out: decoded.append(out.masks.detach()[0])))
    rows: list[tuple[Tensor, Tensor, int, float, bool]] = []

    def keep(mask: np.ndarray, there: int, weight: float, several: bool) -> None:
        tokens = torch.stack([seen[head] for head in HEADS])
        rows.append((tokens, overlaps(decoded[-1], mask), there, weight, several))

    try:
        features = model.encode(example.prior, side=settings.side)
        rng = np.random.default_rng(clip)
        for prompt, prediction in evaluate.clicked(model, features, example.prior_mask, rng):
            keep(example.prior_mask, -1, CLICK, len(prompt.points_xy) == 1)
            last = prompt, prediction
        prior = PriorMemory().with_recording(*record(model, example.prior, features, *last))
        tracker = Tracker(model, prior, settings)
        for t, (frame, mask) in enumerate(zip(example.frames, example.masks)):
            tracker.step(frame, t)
            visible, gone = mask.mean() > evaluate.VISIBLE, not mask.any()
            keep(mask, 1 if visible else 0 if gone else -1, float(visible), True)
    finally:
        for hook in hooks:
            hook.remove()
    tokens, truth, there, weight, several = zip(*rows)
    return Met(torch.stack(tokens), torch.stack(truth), torch.tensor(there), torch.tensor(weight),
               torch.tensor(several), torch.full((len(rows),), clip))  # fmt: skip


def met_in_clips(
    weights: str, config: scenes.SceneConfig, clips: Sequence[int], settings: TrackSettings
) -> Met:
    """Return what the heads met in some clips, seen by one thread of this process."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model = load_model(weights, device="cpu")
    return Met.joined(
        [met_in(model, scenes.make_example(config, FIRST + clip), clip, settings) for clip in clips]
    )


def iou_loss(iou: Tensor, met: Met) -> Tensor:
    """Return the loss of the predicted IoU of N frames: its errors, the taken mask's most, and which one is taken."""
    choice = torch.where(met.several, 1 + iou.detach()[:, 1:].argmax(1), 0)
    errors = (iou - met.truth).abs()
    rows = torch.arange(len(iou))
    taken = ((iou[:, 1:] / SHARPNESS).softmax(1) * met.truth[:, 1:]).sum(1)
    missed = (met.truth[:, 1:].amax(1) - taken) * met.several
    each = errors[rows, choice] + 0.3 * errors.mean(1) + 0.5 * missed
    return (each * met.weight).sum() / met.weight.sum()


def figures(iou: Tensor, presence: Tensor, met: Met) -> dict[str, float]:
    """Return what the heads do for N frames."""
    rows, shown = torch.arange(len(iou)), met.there == 1
    choice = 1 + iou[:, 1:].argmax(1)
    clicks = met.several & (met.weight == CLICK) & ~shown
    truth, error = met.truth[rows, choice], (iou - met.truth)[rows, choice].abs()
    right = (presence > 0) == shown
    return {
        "IoU error": float(error[shown].mean()),
        "J of the taken": float(truth[shown].mean()),
        "J of the best": float(met.truth[shown, 1:].amax(1).mean()),
        "click, IoU error": float(error[clicks].mean()),
        "click, J of the taken": float(truth[clicks].mean()),
        "click, J of the best": float(met.truth[clicks, 1:].amax(1).mean()),
        "presence right": float(right[met.there >= 0].float().mean()),
        "presence right, in sight": float(right[shown].float().mean()),
        "presence right, out of sight": float(right[met.there == 0].float().mean()),
    }


def presence_loss(presence: Tensor, met: Met) -> Tensor:
    sure = met.there >= 0
    return functional.binary_cross_entropy_with_logits(presence[sure], (met.there[sure] == 1).float())


def fit(
    head: nn.Module, given: Tensor, met: Met, loss: Any, left_out: Tensor, epochs: int, lr: float
) -> nn.Module:
    """Return the head, trained as long as it helps the clips that are left out; `loss` is of (output, Met)."""
    best, lowest = copy.deepcopy(head), float("inf")
    here, there = met.part(~left_out), met.part(left_out)
    optimiser = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.05)
    shuffle = torch.Generator().manual_seed(0)
    for epoch in range(epochs + 1):
        with torch.no_grad():
            now = float(loss(head(given[left_out]), there))
        if now < lowest:
            best, lowest = copy.deepcopy(head), now
        if epoch == epochs:
            break
        for group in optimiser.param_groups:
            group["lr"] = lr * (1 - epoch / epochs)
        for rows in torch.randperm(len(here.there), generator=shuffle).split(512):
            optimiser.zero_grad()
            loss(head(given[~left_out][rows]), here.part(rows)).backward()
            optimiser.step()
    return best


def fitted(decoder: nn.Module, met: Met, epochs: int = 30, lr: float = 3e-4) -> dict[str, Tensor]:
    """Return new weights of both heads by their names in the decoder; print what they change on clips left out."""
    clips = met.clip.unique()
    left_out = torch.isin(met.clip, clips[: max(1, round(LEFT_OUT * len(clips)))])
    out = met.part(left_out)
    iou_head, presence_head = (
        copy.deepcopy(getattr(decoder, head)).float().requires_grad_() for head in HEADS
    )

    def tell(word: str) -> None:
        with torch.no_grad():
            said = figures(iou_head(out.tokens[:, 0]).sigmoid(), presence_head(out.tokens[:, 1])[:, 0], out)
        print(
            json.dumps({"heads": word} | {name: round(value, 4) for name, value in said.items()}), flush=True
        )

    tell("before")
    counted = met.weight > 0
    iou_head = fit(
        iou_head, met.tokens[counted, 0], met.part(counted),
        lambda said, some: iou_loss(said.sigmoid(), some), left_out[counted], epochs, lr,
    )  # fmt: skip
    presence_head = fit(
        presence_head, met.tokens[:, 1], met,
        lambda said, some: presence_loss(said[:, 0], some), left_out, epochs, lr,
    )  # fmt: skip
    tell("after")
    heads = dict(zip(HEADS, (iou_head, presence_head)))
    return {
        f"{head}.{key}": value for head, made in heads.items() for key, value in made.state_dict().items()
    }


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
    new = fitted(load_model(args.weights, device="cpu").sam_mask_decoder, met)
    with safe_open(args.weights, "pt") as file:
        notes = file.metadata()
    weights = load_file(args.weights)
    for key, value in new.items():
        name = f"sam_mask_decoder.{key}"
        weights[name] = value.to(weights[name].dtype)
    save_file(weights, args.out, notes)
    args.out.chmod(0o644)


if __name__ == "__main__":
    main()
