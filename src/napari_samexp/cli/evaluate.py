"""``napari-samexp evaluate``: labels against a ground truth."""

from __future__ import annotations

import json as to_json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_samexp._text import one_line
from napari_samexp.cli.arguments import frame_numbers, frame_slice
from napari_samexp.cli.folders import require_folder
from napari_samexp.cli.options import Json, Labels
from napari_samexp.cli.tables import columns
from napari_samexp.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_samexp.measure.evaluation import Evaluation

__all__ = ["evaluate"]

FRAMES, LABELS, CHART = "frames.csv", "labels.csv", "curves.png"


def evaluate(
    labels: Labels,
    ground_truth: Annotated[
        Path,
        typer.Option(metavar="TRUTH", help="The ground truth, in any of these formats.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help=f"Also write {FRAMES}, {LABELS} and {CHART} into this folder."),
    ] = None,
    frames: Annotated[
        str | None, typer.Option(metavar="A:B", help="Frames A to B - 1; DAVIS counts 1:-1.")
    ] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            metavar="L=T", help="Compare label L with number T of the ground truth; may be repeated."
        ),
    ] = None,
    void: Annotated[
        int | None, typer.Option(metavar="N", help="Ignore pixels with this number in the ground truth.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare labels with a ground truth: J, F and J&F as DAVIS defines them, and presence.

    J is intersection over union, F compares the outlines within 0.8 % of the image's diagonal, J&F is
    their mean; both are 1 where label and ground truth are empty. Presence is the share of frames in which
    the labels are right about whether the object is there. Without --pair, equal numbers are compared.
    Frames that a run has not finished do not count.
    """
    requested, pairs = frame_slice(frames), dict(_pair(text) for text in pair or ())
    inputs = {"the labels": labels, "the ground truth": ground_truth}
    if out is not None:
        require_folder("--out", out, inputs, (FRAMES, LABELS, CHART))
    made = _evaluated(labels, ground_truth, pairs, requested, void)
    if out is not None:
        _write(out, made)
    facts = _facts(made)
    typer.echo(to_json.dumps(facts, indent=1) if json else _text(facts, out))


def _evaluated(
    labels: Path, ground_truth: Path, pairs: dict[int, int], frames: slice, void: int | None
) -> Evaluation:
    from napari_samexp.measure.evaluation import evaluate_masks
    from napari_samexp.measure.masks import open_masks

    with open_masks(labels) as found, open_masks(ground_truth) as expected:
        chosen = frame_numbers(frames, found.shape[0], backward=False)
        return evaluate_masks(found, expected, pairs=pairs or None, frames=chosen, void=void)


def _pair(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,9})=([0-9]{1,9})", text.strip())
    if match is None:
        raise SettingsError(f"--pair is {text!r}; give LABEL=TRUTH such as 1=255.")
    return int(match[1]), int(match[2])


def _write(out: Path, made: Evaluation) -> None:
    from napari_samexp.render.evaluation import evaluation_chart
    from napari_samexp.render.overlay import write_png

    out.mkdir(parents=True, exist_ok=True)
    made.write_frames_csv(out / FRAMES)
    made.write_labels_csv(out / LABELS)
    write_png(out / CHART, evaluation_chart(made))


def _facts(made: Evaluation) -> dict[str, Any]:
    rows = {str(s.label): {**asdict(s), "jf": s.jf} for s in made.labels}
    return {
        "jf": round(made.jf, 6),
        "frames": max(entry["frames"] for entry in rows.values()),
        "left_out": made.left_out,
        "labels": {label: _rounded(entry) for label, entry in rows.items()},
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)  # JSON has no NaN
    return value


def _text(facts: dict[str, Any], out: Path | None) -> str:
    head = ("label", "J&F", "J", "J recall", "F", "F recall", "J where seen", "presence", "name")
    rows = [(label, *_row(entry), entry["name"]) for label, entry in facts["labels"].items()]
    left = f", {facts['left_out']} not finished and left out" if facts["left_out"] else ""
    lines = [*columns(head, rows), "", f"J&F {facts['jf']:.3f} over {facts['frames']} frames{left}"]
    if out is not None:
        lines += [f"{one_line(out)}: {FRAMES}, {LABELS}, {CHART}"]
    return "\n".join(lines)


def _row(entry: dict[str, Any]) -> Sequence[str]:
    values = (
        entry["jf"], entry["j"]["mean"], entry["j"]["recall"], entry["f"]["mean"], entry["f"]["recall"],
        entry["j_seen"], entry["presence"],
    )  # fmt: skip
    return ["-" if value is None else f"{value:.3f}" for value in values]
