"""Draw the learning curve of one or more runs, one after the other, from their logs.

python -m training.learning_curve training/logs/*.jsonl [--out training/learning_curve.png]
"""

from __future__ import annotations

import argparse
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np

PANELS = {
    "J while training": {
        "prompted: one point": ("click_1_J", "click_J"),
        "prompted: two or three tokens": ("click_3_J",),
        "prior alone": ("track_J",),
        "prior and recent frames": ("recent_J",),
    },
    "presence right": {"prior alone": ("track_presence_right",), "with recent frames": ("recent_presence_right",)},
    "predicted IoU, mean error": {"prior alone": ("track_iou_error", "track_iou"), "one point": ("click_1_iou_error",)},
    "kind of outline right, line-ups": {"from a whole thing": ("outline_right",)},
}  # fmt: skip


def in_order(path: Path) -> list[tuple[int, str]]:
    """Return what sorts names by the numbers in them: the tenth after the ninth."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", path.name)]


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the lines of a log; where a run was resumed from an earlier state, the later line of a step holds."""
    lines = {line["step"]: line for line in map(json.loads, path.read_text("utf-8").splitlines())}
    return [lines[step] for step in sorted(lines)]


def curve(logs: list[list[dict[str, float]]], names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return steps, counted over all logs, and the first of the named figures that a line has; gaps are NaN."""
    steps, values, before = [], [], 0
    for log in logs:
        for line in log:
            steps.append(before + line["step"])
            values.append(next((line[name] for name in names if name in line), np.nan))
        before += int(log[-1]["step"])
    return np.array(steps, float), np.array(values, float)


def smooth(values: np.ndarray, width: int = 7) -> np.ndarray:
    """Return the running mean over `width` values, of those that are there."""
    there = np.isfinite(values)
    kernel = np.ones(min(width, len(values)))
    total = np.convolve(np.where(there, values, 0), kernel, "same")
    count = np.convolve(there.astype(float), kernel, "same")
    return np.where(there, total / np.maximum(count, 1), np.nan)


def main() -> None:
    """Draw the curves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "learning_curve.png")
    args = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    logs = [read_log(path) for path in sorted(args.logs, key=in_order)]
    ends = np.cumsum([log[-1]["step"] for log in logs])
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(15, 3.6), layout="constrained")
    for axis, (title, lines) in zip(axes, PANELS.items()):
        for label, names in lines.items():
            steps, values = curve(logs, names)
            axis.plot(steps, smooth(values), label=label, linewidth=1.2)
        for end, _ in pairwise([*ends, None]):
            axis.axvline(end, color="0.8", linewidth=0.8, zorder=0)
        axis.set(title=title, xlabel="step (gray: another run or other scenes)")
        axis.locator_params(axis="x", nbins=5)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(args.out, dpi=90)
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
