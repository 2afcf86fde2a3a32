"""Ways to spend less on memory and still frames that change the results: what each gives, and what it costs.

    python -m benchmarks.speed.optional_modes [--clips 60] [--modes exact pooled_2 ...] [--speed-side 1024]

J is that of the bundled starter on its held-out clips (training/scenes, seeds from 10000), tracked with one
prior of three clicks as in training/evaluate.py, the mean of the frames that show the object; also the share of
frames of which a mode has encoded the image. Speed is that of a whole frame of SAM 2.1 tiny with random
weights at 1024, memory full, against the exact frame of the same turn (CPU time). A mode is worth having at
1.5 times the speed and a J no more than 0.01 lower.

exact        six recent memories, every frame remembered
recent_2     two recent memories (`--recent 2`, which is a setting anyway); recent_1, recent_0 likewise
every_3      every third frame is remembered; every_3_recent_2 besides keeps two
pooled_2     memories' tokens averaged over 2 x 2; pooled_4 over 4 x 4; both with the recent ones only: recent_pooled_2
pruned_4     of each memory the fourth of the tokens that differs most from its mean token; pruned_8, the eighth
still        a frame that hardly differs from the last one encoded is not encoded anew
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.speed.turns import KINDS, random_weights, spread, write

STILL = 2.0  # mean difference of 8-bit pixels below which a frame counts as still
FULL = 8  # frames until six recent memories are there


# ---- the modes


class Reduced:
    """Lets a model's memory attention look at fewer tokens of each memory.

    Parameters
    ----------
    model : Sam2
    pool : int
        Side of the squares of tokens that are averaged; 1 for none.
    keep : float
        Share of each memory's tokens that are kept.
    prior_too : bool
        Whether the first memory, the prior's, is reduced as well.
    """

    def __init__(self, model: Any, pool: int = 1, keep: float = 1.0, prior_too: bool = True) -> None:
        self.pool, self.keep, self.prior_too = pool, keep, prior_too
        self._attention = model.memory_attention
        self._whole = self._attention.forward
        self._rope: Any = None
        self._attention.forward = self._forward
        for layer in self._attention.layers:
            cross = layer.cross_attn_image
            cross.rotated_keys = self._turned(cross)

    def _forward(
        self, features: Tensor, memory: Tensor, memory_pos: Tensor, grids: Any, *more: Any
    ) -> Tensor:
        from napari_samexp.sam.position_encoding import Rope, axial_rope

        channels = self._attention.layers[0].cross_attn_image.q_proj.out_features
        kept: list[tuple[Tensor, Tensor]] = []
        ropes, start = [], 0
        for place, grid in enumerate(grids):
            stop = start + grid[0] * grid[1]
            part, pos = memory[:, start:stop], memory_pos[:, start:stop]
            start = stop
            if place == 0 and not self.prior_too:
                rope = axial_rope(channels, grid, memory.device)
            elif self.pool > 1:
                part, pos = self._pooled(part, grid), self._pooled(pos, grid)
                small = (grid[0] // self.pool, grid[1] // self.pool)
                rope = axial_rope(channels, small, memory.device, grid)
            else:
                rows = self._rows(part)
                part, pos = part[:, rows], pos[:, rows]
                rope = tuple(table[rows] for table in axial_rope(channels, grid, memory.device))
            kept.append((part, pos))
            ropes.append(rope)
        self._rope = Rope(torch.cat(tables) for tables in zip(*ropes))
        tokens = torch.cat([*(part for part, _ in kept), memory[:, start:]], 1)
        places = torch.cat([*(pos for _, pos in kept), memory_pos[:, start:]], 1)
        return self._whole(features, tokens, places, grids, *more)

    def _pooled(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        square = tokens.transpose(1, 2).unflatten(2, grid)
        return functional.avg_pool2d(square.float(), self.pool).to(tokens.dtype).flatten(2).transpose(1, 2)

    def _rows(self, tokens: Tensor) -> Tensor:
        apart = (tokens - tokens.mean(1, keepdim=True)).norm(dim=-1).mean(0)
        return apart.topk(max(1, int(self.keep * tokens.shape[1]))).indices.sort().values

    def _turned(self, cross: Any) -> Callable[..., Tensor]:
        from napari_samexp.sam.position_encoding import rotate

        def rotated_keys(k: Tensor, grids: Any) -> Tensor:
            assert self._rope is not None
            k = cross.k_proj(k)
            spatial = len(self._rope[0])
            return torch.cat((rotate(k[:, :spatial], self._rope), k[:, spatial:]), dim=1)

        return rotated_keys


def make_tracker(mode: str, model: Any, prior: Any, side: int | None, keep_lost: bool = False) -> Any:
    """Return a tracker in a mode, and change the model as that needs."""
    from napari_samexp.tracking import TrackSettings

    words = mode.split("_")
    recent = int(words[words.index("recent") + 1]) if "recent" in words and "pooled" not in words else 6
    every = int(words[1]) if words[0] == "every" else 1
    settings = TrackSettings(side=side, recent=recent, keep_lost=keep_lost)
    tracker = _sparse_class()(model, prior, settings, every, words[0] == "still")
    if "pooled" in words:
        Reduced(model, pool=int(words[-1]), prior_too=words[0] != "recent")
    elif words[0] == "pruned":
        Reduced(model, keep=1 / int(words[-1]))
    return tracker


def _sparse_class() -> Any:
    """Return the class of the tracker, imported late: this script says its help without torch."""
    from napari_samexp.tracking import Tracker

    class Sparse(Tracker):
        """Remembers every n-th frame only, and may encode no frame that is still."""

        def __init__(self, model: Any, prior: Any, settings: Any, every: int, still: bool) -> None:
            super().__init__(model, prior, settings)
            self.every, self.encoded, self.seen = every, 0, 0
            self._last: tuple[np.ndarray, Any] | None = None
            self._encode, self._still = model.encode, still
            model.encode = self._maybe

        def _maybe(self, frame: Any, **options: Any) -> Any:
            self.seen += 1
            if self._still and self._last is not None:
                apart = np.abs(frame.astype(np.int16) - self._last[0]).mean()
                if apart < STILL:
                    return self._last[1]
            self.encoded += 1
            features = self._encode(frame, **options)
            self._last = (np.array(frame, np.int16), features)
            return features

        def _remember(self, features: Any, index: int, tracked: Any, presence: Any) -> Any:
            if index % self.every == 0:
                return super()._remember(features, index, tracked, presence)
            self.last_memories = {}
            return None

    return Sparse


# ---- quality


def quality(modes: list[str], clips: int, first: int, frames: int) -> dict[str, dict[str, float]]:
    """Return by mode the mean J of the starter's clips, and how that differs from the exact one, clip by clip."""
    from napari_samexp.sam import load_model
    from napari_samexp.tracking import PriorMemory, record
    from training import scenes
    from training.measure import VISIBLE, clicked, jaccard

    config = scenes.SceneConfig(side=256, frames=frames)
    found: dict[str, list[list[float]]] = {mode: [] for mode in modes}
    encoded = dict.fromkeys(modes, 0.0)
    for seed in range(first, first + clips):
        example, rng = scenes.make_example(config, seed), np.random.default_rng(seed)
        model = load_model("starter", device="cpu")
        features = model.encode(example.prior)
        *_, (prompt, prediction) = clicked(model, features, example.prior_mask, rng)
        prior = PriorMemory().with_recording(*record(model, example.prior, features, prompt, prediction))
        shown = example.masks.mean((1, 2)) > VISIBLE
        for mode in modes:
            tracker = make_tracker(mode, load_model("starter", device="cpu"), prior, None)
            scores = []
            for t, (frame, mask) in enumerate(zip(example.frames, example.masks)):
                labels_found = tracker.step(frame, t).labels == 1
                if shown[t]:
                    scores.append(jaccard(labels_found, mask))
            found[mode].append(scores)
            encoded[mode] += tracker.encoded / tracker.seen
        print(f"clip {seed - first + 1} of {clips}", file=sys.stderr)
        if seed == first + clips - 1 or (seed - first) % 5 == 4:
            report = _table(found, {mode: value / (seed - first + 1) for mode, value in encoded.items()})
            for mode, row in report.items():
                words = "   ".join(f"{name} {value}" for name, value in row.items())
                print(f"{seed - first + 1:3} clips   {mode:18} {words}", flush=True)
    return report


def _table(found: dict[str, list[list[float]]], encoded: dict[str, float]) -> dict[str, dict[str, float]]:
    report = {}
    for mode, scores in found.items():
        every = np.concatenate(scores)
        per_clip = [np.mean(a) - np.mean(b) for a, b in zip(scores, found["exact"]) if a]
        report[mode] = {
            "J": round(float(every.mean()), 4),
            "J - exact": round(float(every.mean() - np.concatenate(found["exact"]).mean()), 4),
            "standard error of a clip's difference": round(
                float(np.std(per_clip) / max(1, len(per_clip)) ** 0.5), 4
            ),
            "encoded": round(encoded[mode], 3),
        }
    return report


# ---- speed


def speed(modes: list[str], side: int, turns: int, threads: int, folder: Path) -> dict[str, Any]:
    """Return by mode what a frame takes of the exact one, in turns."""
    import time

    from benchmarks.speed.frame_peer import CLICK, frame
    from napari_samexp.sam import load_model
    from napari_samexp.tracking import PriorMemory, record
    from napari_samexp.types import Prompt

    torch.set_num_threads(threads)
    weights = random_weights("sam2.1_hiera_tiny", folder / "tiny.pt")
    trackers = {}
    image = frame(0)
    for mode in modes:
        model = load_model(weights, device="cpu")
        if not trackers:
            features = model.encode(image, side=side)
            prompt = Prompt.from_lists(objects=[CLICK])
            recorded = record(model, image, features, prompt, model.segment(features, prompt))
        tracker = make_tracker(mode, model, PriorMemory().with_recording(*recorded), side, keep_lost=True)
        memory = recorded[1]
        for bank in tracker._banks.values():  # full from the first frame on: filling it would take long
            for index in range(FULL):
                bank.store(index - FULL, memory)
        tracker._first = 0
        trackers[mode] = tracker
    taken: dict[str, list[dict[str, float]]] = {mode: [] for mode in modes}
    for turn in range(1 + turns):
        for mode, tracker in trackers.items():
            wall, cpu = time.perf_counter(), time.process_time()
            tracker.step(frame(turn), turn)
            figures = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            if turn:
                taken[mode].append(figures)
        print(f"speed: turn {turn + 1} of {1 + turns}", file=sys.stderr)
    report = {}
    for mode, figures in taken.items():
        ratios = {kind: [a[kind] / b[kind] for a, b in zip(figures, taken["exact"])] for kind in KINDS}
        report[mode] = {kind: round(float(np.median(values)), 4) for kind, values in ratios.items()}
        print(f"{mode:18} CPU of the exact frame: {spread(ratios['cpu'])}", flush=True)
    return report


MODES = [
    *("exact", "recent_2", "recent_1", "recent_0", "every_3", "every_3_recent_2"),
    *("pooled_2", "pooled_4", "recent_pooled_2", "recent_pooled_4", "pruned_4", "pruned_8", "still"),
]


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modes", nargs="*", default=MODES, choices=MODES)
    parser.add_argument("--clips", type=int, default=60, help="0 to leave quality out")
    parser.add_argument("--frames", type=int, default=24, help="of each clip")
    parser.add_argument("--first-seed", type=int, default=10_000)
    parser.add_argument("--speed-side", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=5, help="0 to leave speed out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    modes = list(dict.fromkeys(["exact", *args.modes]))
    torch.set_num_threads(args.threads)
    report: dict[str, Any] = {}
    if args.clips:
        report["quality"] = quality(modes, args.clips, args.first_seed, args.frames)
    if args.turns:
        with tempfile.TemporaryDirectory() as folder:
            report["speed"] = speed(modes, args.speed_side, args.turns, args.threads, Path(folder))
    write(args.out, "optional modes", **report)


if __name__ == "__main__":
    main()
