"""A chart of an evaluation. No torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_samexp.measure.evaluation import Evaluation
from napari_samexp.render.charts import line_chart

__all__ = ["evaluation_chart"]

_MOST_CURVES = 8


def evaluation_chart(evaluation: Evaluation) -> npt.NDArray[np.uint8]:
    """Return a chart over time, (H, W, 3) uint8: J and F of a single label, or J&F of each of several."""
    scores = evaluation.labels
    if len(scores) == 1:
        frames = evaluation.of_label(scores[0].label)
        xs = [score.frame for score in frames]
        series = {"J": (xs, [s.j for s in frames]), "F": (xs, [s.f for s in frames])}
        title = f"{scores[0].name}: J {scores[0].j.mean:.3f}, F {scores[0].f.mean:.3f}"
        return line_chart(series, title=title, x_name="frame")
    many = {}
    for score in scores[:_MOST_CURVES]:
        frames = evaluation.of_label(score.label)
        many[f"{score.name} {score.jf:.3f}"] = [s.frame for s in frames], [s.jf for s in frames]
    return line_chart(many, title=f"J&F {evaluation.jf:.3f}", x_name="frame")
