"""How far our tensors are from those of Meta's code: a table of the worst errors by family and part.

    python -m tests.parity.parity [FOLDER]

FOLDER holds golden files (their README says what is in them), by default the selection in tests/data/golden.
The tests compare the same tensors by the same code.
"""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_samexp.sam import fast
from tests import ROOT
from tests.parity.golden import FAMILIES, Golden, load, load_reference
from tests.parity.reproduce import PARTS, Run, end_to_end
from tests.parity.reproduce_edgetam import EDGETAM

PARTS = {**PARTS, "EdgeTAM": EDGETAM}
SELECTION = ROOT / "tests" / "data" / "golden"
END_TO_END = ("long", "asis", "boxpoints", "mask", "two_priors", "reverse")
RUNS = tuple(f"e2e_{case}" for case in END_TO_END)
# the runs that each family has
CASES = {"SAM 2": END_TO_END, "SAM 2.1": END_TO_END, "EdgeTAM": ("long", "two_priors")}
# what the code is given, or what is only there to look up
INPUTS = re.compile(
    r"(.+\.)?in\.(?!current_vision_pos_embed|maskmem_pos_enc).+|(.+\.)?input|(.+\.)?image_u8|frames(_resized)?_u8"
    r"|(present|absent)\.obj_score_last_bias|\w+\.pos_embed(_window)?"
)


class Compared(NamedTuple):
    """A golden tensor and ours.

    Parameters
    ----------
    error : float
        Largest difference, divided by the golden tensor's largest value.
    allowed : float
    """

    name: str
    error: float
    allowed: float


reference = lru_cache(maxsize=8)(load_reference)  # to be left as it is
load_cached = lru_cache(maxsize=64)(load)


def reproduced(folder: Path, family: str, part: str) -> dict[str, Tensor]:
    """Return our tensors under the golden names, by the fast paths or the reference as the switch is."""
    return _reproduced(folder, family, part, fast.is_enabled())


@lru_cache(maxsize=64)
def _reproduced(folder: Path, family: str, part: str, by_fast_paths: bool) -> dict[str, Tensor]:
    golden = load_cached(folder, f"{FAMILIES[family]}_{part}")
    with torch.inference_mode():
        model = None if part == "hiera_pos_embed" else reference(folder, family)
        if part in RUNS:
            return tracked(folder, family, part.removeprefix("e2e_")).tensors
        return dict(PARTS[family][part](model, golden))


def tracked(folder: Path, family: str, case: str) -> Run:
    """Return one of our end-to-end runs, by the fast paths or the reference as the switch is."""
    return _tracked(folder, family, case, fast.is_enabled())


@lru_cache(maxsize=64)
def _tracked(folder: Path, family: str, case: str, by_fast_paths: bool) -> Run:
    stem = FAMILIES[family]
    frames = load_cached(folder, f"{stem}_e2e_long").get("frames_resized_u8")
    if frames is None:  # of a selection, in which EdgeTAM tracks the frames of SAM 2.1
        frames = load_cached(folder, "sam2.1_e2e_long")["frames_resized_u8"]
    golden = load_cached(folder, f"{stem}_e2e_{case}")
    return end_to_end(reference(folder, family), golden, frames.numpy(), case)


def outputs(golden: Golden) -> list[str]:
    """Return the names of the tensors that are not inputs."""
    return [name for name in golden.tensors if not INPUTS.fullmatch(name)]


def compared(folder: Path, family: str, part: str, name: str) -> Compared:
    """Compare one tensor; `KeyError` if there is no code for it."""
    golden = load_cached(folder, f"{FAMILIES[family]}_{part}")
    ours, theirs = reproduced(folder, family, part)[name], golden[name]
    if ours.shape != theirs.shape:
        raise ValueError(f"{family} {part} {name} is {tuple(ours.shape)} instead of {tuple(theirs.shape)}")
    difference = (ours.double() - theirs.double()).abs().nan_to_num(nan=float("inf")).max()
    return Compared(name, float(difference) / scale(golden, name), allowed(part, name))


def scale(golden: Golden, name: str) -> float:
    """Return the largest value of a tensor; of a run's object scores, that of all frames.

    A score is a single number and may be as near to 0 as 0.003, where its own size says nothing.
    """
    names = [name]
    if re.fullmatch(r"frame\d\d\.object_score_logits", name):
        names = [other for other in golden.tensors if re.fullmatch(r"frame\d\d\.object_score_logits", other)]
    return max(float(golden[other].double().abs().max()) for other in names) or 1.0


def allowed(part: str, name: str) -> float:
    """Return the largest error that is still parity, as the golden README has it."""
    if part == "hiera_pos_embed" or name.endswith("composed_pos_embed_bhwc"):
        return 1e-5
    if part == "e2e_asis":
        return 1e-2 if name.endswith("maskmem_features") else 2e-3
    return 1e-3 if part in RUNS else 1e-4


def parts_of(family: str, folder: Path = SELECTION) -> list[str]:
    """Return the parts that have golden files."""
    parts = [*PARTS[family], *(f"e2e_{case}" for case in CASES.get(family, ()))]
    return [part for part in parts if (folder / f"{FAMILIES[family]}_{part}.safetensors").exists()]


def painted_wrongly(folder: Path, family: str, case: str) -> dict[int, int]:
    """Return by frame how many pixels of a run's labels contradict the golden masks.

    Pixels within 1e-3 of a mask's largest logit may fall on either side.
    """
    stem = FAMILIES[family]
    golden, run, wrong = load_cached(folder, f"{stem}_e2e_{case}"), tracked(folder, family, case), {}
    for index, labels in run.labels.items():
        logits = golden.get(f"frame{index:02d}.pred_masks")
        if logits is not None:
            shown = functional.interpolate(logits[None, None], labels.shape, mode="bilinear")[0, 0].numpy()
            clear = np.abs(shown) > 1e-3 * np.abs(shown).max()
            wrong[index] = int(((labels > 0) != (shown > 0))[clear].sum())
    return wrong


# ---- the table


def main(folder: Path) -> int:
    """Print the table of the families that FOLDER has; return how many tensors are not at parity."""
    beyond = 0
    families = [
        family for family, stem in FAMILIES.items() if (folder / f"{stem}_state.safetensors").exists()
    ]
    print("| family | part | tensors | worst error | of | allowed |\n|---|---|--:|--:|---|--:|")
    for family in families:
        for part in parts_of(family, folder):
            names = outputs(load_cached(folder, f"{FAMILIES[family]}_{part}"))
            rows = [compared(folder, family, part, name) for name in names]
            worst = max(rows, key=lambda row: row.error / row.allowed)
            beyond += sum(row.error > row.allowed for row in rows)
            what = f"{len(rows)} | {worst.error:.1e} | {worst.name} | {worst.allowed:.0e}"
            print(f"| {family} | {part} | {what} |")
        for case in CASES.get(family, ()):
            beyond += (pixels := sum(painted_wrongly(folder, family, case).values()))
            if pixels:
                print(f"| {family} | labels of {case} | | {pixels} pixels | | 0 |")
    print(f"\n{beyond} beyond what is allowed, of {folder}")
    return beyond


if __name__ == "__main__":
    torch.set_num_threads(1)  # for arrays this small, more only wait for each other
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else SELECTION) > 0)
