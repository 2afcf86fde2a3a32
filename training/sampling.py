"""What a step takes: scenes of a pool, turned over and asked for something, all on their device."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from napari_samexp.sam.prompt_encoder import BOX_END, BOX_START
from training.data import THINGS, Pool
from training.features import NUMBERS, Anchor, change_loss, likeness, outline_losses
from training.losses import Losses
from training.memory import prompt_losses, remember_priors, to_pixels, tracked_losses
from training.model import Starter
from training.prompts import FINE, draw_boxes, draw_clicks, draw_kinds, group_by_count
from training.recipe import StepConfig
from training.scenes import OBJECT_ID

FLIPS = tuple(itertools.product((False, True), repeat=3))
COLOURS = tuple(itertools.permutations(range(3)))
OWN = 0.75  # share of first priors whose prompt asks for the object
SMALLEST = 0.001  # share of an image that a thing covers to be asked for
SURE = 0.0003  # share of an image; with less of it in view, whether an object is there is not asked
SOUGHT = 3  # most things of an image that are looked for
SMALLEST_SOUGHT = 0.002  # as above, of such a thing
TRUE_MEMORY_OF_SOUGHT = 0.3  # share of these that are remembered with their true masks


def flipped(x: Tensor) -> Tensor:
    """Flip and transpose scenes (B, S, H, W, ...), in each of the eight ways those at its own places of the batch."""
    out = torch.empty_like(x)
    every = len(FLIPS)
    for k, (upside, mirrored, transposed) in enumerate(FLIPS):
        some = x[k::every]
        axes = [axis for axis, flip in ((2, upside), (3, mirrored)) if flip]
        some = some.flip(axes) if axes else some
        out[k::every] = some.transpose(2, 3) if transposed else some
    return out


def recoloured(images: Tensor) -> Tensor:
    """Permute the channels of scenes (B, S, H, W, 3), in the same way."""
    out = torch.empty_like(images)
    every = len(COLOURS)
    for k, order in enumerate(COLOURS):
        for channel, source in enumerate(order):
            out[k::every, ..., channel] = images[k::every, ..., source]
    return out


def in_view(share: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for the share of frames that shows an object, whether it is there and whether that is clear."""
    present = share > SURE
    return present, present | (share == 0)


class Sampler:
    """Chooses scenes of a pool, what of them a step sees and what it is asked."""

    def __init__(self, config: StepConfig, pool: Pool) -> None:
        self.config, self.pool = config, pool
        self.device = device = pool.arrays["areas"].device
        self.places = torch.zeros(config.batch, dtype=torch.long, device=device)
        self.starts = torch.zeros(config.batch, dtype=torch.long, device=device)
        kinds = draw_kinds(config.batch * self.prompts_of_a_scene())
        self.groups = group_by_count(kinds, device)
        self.kinds = torch.from_numpy(kinds).to(device)[:, None]
        forwards = torch.arange(config.frames).repeat(config.batch, 1)
        backwards = (torch.arange(config.batch) // len(FLIPS) % 2 == 1)[:, None]
        self.order = torch.where(backwards, forwards.flip(1), forwards).to(device)
        self.box_labels = torch.tensor([BOX_START, BOX_END, 1], device=device)

    def prompts_of_a_scene(self) -> int:
        """Number of prompts of each scene."""
        return self.config.priors + self.config.frames

    def choose(self) -> None:
        """Choose the scenes of the next step."""
        self.places.random_(0, max(1, self.pool.held))
        self.starts.random_(0, self.pool.config.frames - self.config.frames + 1)

    def shown(self) -> dict[str, Tensor]:
        """Return what the chosen scenes show: some of the arrays of their pool, flipped and recoloured."""
        priors = torch.arange(self.config.priors, device=self.device).expand(self.config.batch, -1)
        which = torch.cat((priors, self.pool.config.priors + self.starts[:, None] + self.order), 1)
        taken = {
            name: array[self.places] if name == "kinds" else array[self.places[:, None], which]
            for name, array in self.pool.arrays.items()
        }
        return taken | {
            "images": recoloured(flipped(taken["images"])),
            "instances": flipped(taken["instances"]),
        }

    def prompts(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points (N, 3, 2) and labels (N, 3) that ask for N masks (N, H, W)."""
        points, labels = draw_clicks(target)
        box = self.kinds > 3
        points = torch.where(box[..., None], torch.cat((draw_boxes(target), points[:, :1]), 1), points)
        scale = self.config.side / target.shape[2]
        return (points + 0.5) * scale - 0.5, torch.where(box, self.box_labels, labels)

    def covered(self, masks: Tensor) -> Tensor:
        """(B, S, H, W) to pixels of 16 that are covered, on the grid of the decoder's masks."""
        grid = self.config.side // FINE
        return functional.adaptive_avg_pool2d(masks.float(), (grid, grid)) * FINE**2

    def autocast(self) -> Any:
        """Compute in bfloat16, on CUDA."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def batch(self) -> dict[str, Tensor]:
        """Return the chosen scenes with what they are asked."""
        raise NotImplementedError

    def losses(self, model: Starter, anchor: Anchor | None, true_memory: float) -> Losses:
        """Return the losses of the chosen scenes."""
        raise NotImplementedError


class ExampleSampler(Sampler):
    """One object a clip, and a click on something in every image."""

    def batch(self) -> dict[str, Tensor]:
        """Return the chosen scenes with what they are asked.

        Prior images are asked for the object where `own`, all others for any thing, which teaches clicks.

        Returns
        -------
        dict
            images (B, P + T, H, W, 3) uint8; own (B, P) bool; asked (B, P + T) bool, whether an image has anything to
            ask for; points (B, P + T, 3, 2) and labels (B, P + T, 3), of which `groups` says how many hold; target and
            covered (B, P + T, h, w), pixels of 16 that show what is asked for and the object; present and sure (B, T)
            bool, whether a frame shows the object and whether that is clear.
        """
        priors, shown = self.config.priors, self.shown()
        instances, areas = shown["instances"], shown["areas"]
        pixels = instances.shape[2] * instances.shape[3]
        own = torch.rand(self.config.batch, priors, device=self.device) < OWN
        # further priors have no map of other things
        own = own | (torch.arange(priors, device=self.device) > 0)
        large = (areas >= SMALLEST * pixels) & (torch.arange(THINGS, device=self.device) > 0)
        chosen = (torch.rand(areas.shape, device=self.device) * large).argmax(2)
        asked = large.any(2)
        object_there = areas[:, :priors, OBJECT_ID] > 0
        chosen = torch.cat((torch.where(own, OBJECT_ID, chosen[:, :priors]), chosen[:, priors:]), 1)
        asked = torch.cat((torch.where(own, object_there, asked[:, :priors]), asked[:, priors:]), 1)
        target = (instances == chosen[..., None, None]) | ~asked[..., None, None]
        points, labels = self.prompts(target.flatten(0, 1))
        present, sure = in_view(areas[:, priors:, OBJECT_ID] / pixels)
        return {
            "images": shown["images"],
            "own": own,
            "asked": asked,
            "points": points.unflatten(0, asked.shape),
            "labels": labels.unflatten(0, asked.shape),
            "target": self.covered(target),
            "covered": self.covered(instances == OBJECT_ID),
            "present": present,
            "sure": sure,
        }

    def losses(self, model: Starter, anchor: Anchor | None, true_memory: float) -> Losses:
        """Return the losses of clicks on every image, and of the clip that is tracked."""
        batch, config = self.batch(), self.config
        losses, shape = Losses(torch.zeros((), device=self.device)), batch["images"].shape[:2]
        with self.autocast():
            embedding, high_res = model.sam.image_features(to_pixels(batch["images"], config.side))
            asking = {key: batch[key].flatten(0, 1) for key in ("points", "labels", "target", "asked")}
            prompted = prompt_losses(losses, model.sam, embedding, high_res, asking, self.groups)
            embedding = embedding.unflatten(0, shape)  # (B, P + T, D, h, w)
            priors, frames = embedding.split((config.priors, config.frames), 1)
            of_frames = tuple(x.unflatten(0, shape)[:, config.priors :] for x in high_res)
            state = remember_priors(model.sam, batch, true_memory, priors, prompted)
            tracked_losses(losses, model, batch, state, frames, of_frames, config.recent, config.frames)
        return losses


class InstanceSampler(Sampler):
    """Several things of each scene, clicked on in its first image and looked for in the others."""

    def __init__(self, config: StepConfig, pool: Pool) -> None:
        super().__init__(config, pool)
        self.rows = torch.arange(config.batch, device=self.device).repeat_interleave(SOUGHT)

    def prompts_of_a_scene(self) -> int:
        """Number of prompts of each scene."""
        return SOUGHT

    def batch(self) -> dict[str, Tensor]:
        """Return the chosen scenes with what they are asked.

        A scene with fewer large things than are sought has a thing that is the whole image, and is not `asked` for.

        Returns
        -------
        dict
            images (B, 1 + T, H, W, 3) and instances (B, 1 + T, H, W) uint8; of line-ups kinds (B, 10); and of M things
            rows (M,), their scenes; asked (M,) bool; points (M, 3, 2) and labels (M, 3), of which `groups` says how
            many hold; covered (M, 1 + T, h, w), pixels of 16; present and sure (M, T) bool.
        """
        shown = self.shown()
        instances, areas = shown["instances"], shown["areas"]
        pixels = instances.shape[2] * instances.shape[3]
        large = areas[:, 0] >= SMALLEST_SOUGHT * pixels
        large = large & (torch.arange(THINGS, device=self.device) > 0)
        chance, numbers = (torch.rand(large.shape, device=self.device) * large).topk(SOUGHT, 1)
        asked, numbers = chance.flatten() > 0, numbers.flatten()[:, None]
        masks = (instances[self.rows] == numbers[..., None, None]) | ~asked[:, None, None, None]
        points, labels = self.prompts(masks[:, 0])
        which = numbers[..., None].expand(-1, self.config.frames, 1)
        present, sure = in_view(areas[self.rows, 1:].gather(2, which)[..., 0] / pixels)
        return {key: shown[key] for key in ("images", "instances", "kinds") if key in shown} | {
            "rows": self.rows,
            "asked": asked,
            "points": points,
            "labels": labels,
            "covered": self.covered(masks),
            "present": present & asked[:, None],
            "sure": sure & asked[:, None],
        }

    def losses(self, model: Starter, anchor: Anchor | None, true_memory: float) -> Losses:
        """Return the losses of features, and of finding things or, where the encoder learns alone, of moving features."""
        batch = self.batch()
        losses, shape = Losses(torch.zeros((), device=self.device)), batch["images"].shape[:2]
        pixels = to_pixels(batch["images"], self.config.side)
        with self.autocast():
            embedding, high_res = model.sam.image_features(pixels)
        numbers = batch["kinds"].shape[1] if "kinds" in batch else NUMBERS
        losses.add(
            "likeness", likeness(model.sam, embedding.unflatten(0, shape), batch["instances"], numbers)
        )
        if "kinds" in batch:
            kinds = batch["kinds"].repeat_interleave(shape[1], 0)
            outline_losses(losses, model, embedding, batch["instances"].flatten(0, 1), kinds)
        if not self.config.encoder_only:
            with self.autocast():
                rows = batch["rows"]
                found = (
                    embedding.unflatten(0, shape)[rows],
                    tuple(x.unflatten(0, shape)[rows] for x in high_res),
                )
                self._found_losses(losses, model, batch, *found)
            return losses
        assert anchor is not None
        some = slice(max(2, len(pixels) // 4))
        with torch.no_grad(), self.autocast():
            before = anchor.sam.image_features(pixels[some])
        now = embedding[some], tuple(x[some] for x in high_res)
        losses.add("change", change_loss(anchor.basis, now, before))
        return losses

    def _found_losses(
        self, losses: Losses, model: Starter, batch: dict[str, Tensor], embedding: Tensor,
        high_res: tuple[Tensor, ...],
    ) -> None:  # fmt: skip
        """Add the losses of clicking on M things in first images and of finding them in the clips (M, 1 + T, ...)."""
        asking = {key: batch[key] for key in ("points", "labels", "asked")}
        asking["target"] = batch["covered"][:, 0]
        own = torch.ones(len(batch["rows"]), 1, dtype=torch.bool, device=self.device)
        sought = {"own": own, **{key: batch[key] for key in ("covered", "present", "sure")}}
        first, rest = (tuple(x[:, k] for x in high_res) for k in (0, slice(1, None)))
        prompted = prompt_losses(losses, model.sam, embedding[:, 0], first, asking, self.groups)
        state = remember_priors(model.sam, sought, TRUE_MEMORY_OF_SOUGHT, embedding[:, :1], prompted)
        tracked_losses(losses, model, sought, state, embedding[:, 1:], rest, self.config.recent, 1)


def make_sampler(config: StepConfig, pool: Pool) -> Sampler:
    """Return what chooses a step's scenes from their pool."""
    return (ExampleSampler if pool.config.family == "example" else InstanceSampler)(config, pool)
