"""How long a tracked frame takes EdgeTAM here, in its own reference code, and Meta's smallest SAM 2.1.

    python -m benchmarks.speed.edgetam_speed --reference EDGETAM [--sam2 SAM2] [--rounds 5] [--threads 2] [--side 1024]

EDGETAM and SAM2 are checkouts of facebookresearch/EdgeTAM and facebookresearch/sam2; the Python that runs
this needs what they import (timm 1.0.15, hydra-core, iopath, tqdm; SAM2's also pillow). Weights are random,
under the official keys, and every model loads its file strictly. A frame looks at one prior memory, six recent
ones and 16 pointers. All run in processes of their own, one at a time, a frame each in turn, so that the ratios
of one round are of the same minute; printed are medians, of the clock and of the processor's time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

STAGES = ("image", "recall", "decode", "remember")
RECENT, POINTERS = 6, 15
KINDS = {"ours": "edgetam", "reference": "edgetam", "sam2": "sam2.1_hiera_tiny"}
CONFIGS = {"reference": "configs/edgetam.yaml", "sam2": "configs/sam2.1/sam2.1_hiera_t.yaml"}

Times = dict[str, tuple[float, float]]  # by stage: seconds on the clock, and of the processor


class Stopwatch:
    """Adds up what functions take, by stage."""

    def __init__(self) -> None:
        self.times: Times = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter(), time.process_time()
        yield
        taken = time.perf_counter() - began[0], time.process_time() - began[1]
        before = self.times.get(name, (0.0, 0.0))
        self.times[name] = before[0] + taken[0], before[1] + taken[1]

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            with self.stage(stage):
                return function(*given, **named)

        return call


# ---- a process of one model


def serve(kind: str, weights: Path, side: int, threads: int) -> None:
    """Run one frame for every line on standard input, and answer with its times."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    watch = Stopwatch()
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the references print is no answer
    with torch.inference_mode():
        frame = (our_frame if kind == "ours" else partial(their_frame, kind))(weights, side, watch)
        for _ in sys.stdin:
            watch.times = {}
            with watch.stage("frame"):
                frame()
            answer.write(json.dumps(watch.times) + "\n")
            answer.flush()


def our_frame(weights: Path, side: int, watch: Stopwatch) -> Callable[[], object]:
    import torch

    from napari_samexp.sam import load_model
    from napari_samexp.sam.models import PRIOR_SLOT

    model = load_model(weights, device="cpu")
    tokens = model.variant.num_latents + model.variant.num_latents_2d
    memories = [torch.randn(1, model.variant.mem_dim, 1, tokens) for _ in range(1 + RECENT)]
    slots = torch.tensor([[PRIOR_SLOT, *range(RECENT - 1, -1, -1)]])
    pointers = torch.randn(1, 1 + POINTERS, model.variant.d_model)
    pixels = torch.randn(1, 3, side, side)

    def frame() -> object:
        with watch.stage("image"):
            embedding, high_res_features = model.image_features(pixels)
        with watch.stage("recall"):
            recalled = model.recall(embedding, memories, slots, pointers, torch.zeros(1, 1 + POINTERS))
        with watch.stage("decode"):
            tracked = model.track(recalled, high_res_features, (side, side))
        with watch.stage("remember"):
            return model.encode_memory(embedding, tracked.logits[:, None], tracked.presence, binary=False)

    return frame


def their_frame(kind: str, weights: Path, side: int, watch: Stopwatch) -> Callable[[], object]:
    import torch

    if kind == "reference":  # it asks for weights from elsewhere, only to replace them
        from sam2.modeling.backbones import timm

        timm.create_model = partial(with_no_weights, timm.create_model)
    from sam2.build_sam import build_sam2_video_predictor

    model = build_sam2_video_predictor(CONFIGS[kind], str(weights), device="cpu")
    names = (
        "forward_image",
        "_prepare_memory_conditioned_features",
        "_forward_sam_heads",
        "_encode_memory_in_output",
    )
    for stage, name in zip(STAGES, names):
        setattr(model, name, watch.timed(stage, getattr(model, name)))
    shape = (1, 512, 64) if kind == "reference" else (1, 64, side // 16, side // 16)
    past = [
        {
            "maskmem_features": torch.randn(shape),
            "maskmem_pos_enc": [torch.randn(shape)],
            "obj_ptr": torch.randn(1, 256),
        }
        for _ in range(1 + POINTERS)
    ]
    outputs = {"cond_frame_outputs": {0: past[0]}, "non_cond_frame_outputs": dict(enumerate(past[1:], 1))}
    pixels = torch.randn(1, 3, side, side)

    def frame() -> object:
        _, features, places, sizes = model._prepare_backbone_features(model.forward_image(pixels))
        return model.track_step(1 + POINTERS, False, features, places, sizes, None, None, outputs, 100)

    return frame


def with_no_weights(create: Callable[..., Any], *given: Any, pretrained: bool = True, **named: Any) -> Any:
    return create(*given, pretrained=False, **named)


# ---- weights


def write_weights(name: str, path: Path) -> None:
    """Write a file of random numbers under the official keys of a model."""
    import torch

    from napari_samexp.sam import VARIANTS
    from napari_samexp.sam.weights.loading import build

    torch.manual_seed(0)
    state = {key: random_like(key, tensor) for key, tensor in build(VARIANTS[name]).state_dict().items()}
    torch.save({"model": state}, path)


def random_like(key: str, tensor: Any) -> Any:
    """Return numbers with which values neither vanish nor grow from layer to layer."""
    import torch

    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    if tensor.ndim < 2:
        filled = 0.0 if key.endswith(("bias", "running_mean")) else 1.0
        return torch.full(tensor.shape, filled)
    return torch.randn(tensor.shape) / max(1, tensor[0].numel()) ** 0.5


# ---- the run


def start(
    kind: str, checkout: Path | None, weights: Path, options: argparse.Namespace
) -> subprocess.Popen[str]:
    environment = dict(os.environ)
    if checkout is not None:
        environment["PYTHONPATH"] = os.pathsep.join(
            (str(checkout.resolve()), environment.get("PYTHONPATH", ""))
        )
    command = [sys.executable, __file__, "--serve", kind, "--weights", str(weights)]
    command += ["--side", str(options.side), "--threads", str(options.threads)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=weights.parent
    )


def one_frame(process: subprocess.Popen[str]) -> Times:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a model's process ended; what it said is above")
    return {stage: tuple(seconds) for stage, seconds in json.loads(line).items()}


def measure(options: argparse.Namespace) -> dict[str, list[Times]]:
    """Return by model the times of every round; the first frame of each is not counted."""
    checkouts = {"ours": None, "reference": options.reference, "sam2": options.sam2}
    if options.sam2 is None:
        del checkouts["sam2"]
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.pt" for name in {KINDS[kind] for kind in checkouts}}
        for name, path in files.items():
            write_weights(name, path)
        running = {kind: start(kind, path, files[KINDS[kind]], options) for kind, path in checkouts.items()}
        try:
            for process in running.values():
                one_frame(process)
            rounds = [{kind: one_frame(p) for kind, p in running.items()} for _ in range(options.rounds)]
        finally:
            for process in running.values():
                process.communicate()
    return {kind: [times[kind] for times in rounds] for kind in running}


def show(times: dict[str, list[Times]]) -> None:
    """Print a table of milliseconds, and the ratios of ours to the others."""
    print("| model | time | " + " | ".join((*STAGES, "frame")) + " |\n|---|---|" + "--:|" * 5)
    for kind, rounds in times.items():
        for which, unit in enumerate(("clock ms", "processor ms")):
            values = [median(one[stage][which] for one in rounds) for stage in (*STAGES, "frame")]
            print(f"| {kind} | {unit} | " + " | ".join(f"{1000 * value:.0f}" for value in values) + " |")
    for other in [kind for kind in times if kind != "ours"]:
        for which, unit in enumerate(("clock", "processor")):
            ratios = [a["frame"][which] / b["frame"][which] for a, b in zip(times["ours"], times[other])]
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            print(f"a frame of ours is {median(ratios):.3f} of {other} ({unit}; {spread})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, help="a checkout of facebookresearch/EdgeTAM")
    parser.add_argument("--sam2", type=Path, help="a checkout of facebookresearch/sam2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--serve", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.weights, options.side, options.threads)
    elif options.reference is None:
        parser.error("--reference is needed")
    else:
        show(measure(options))


if __name__ == "__main__":
    main()
