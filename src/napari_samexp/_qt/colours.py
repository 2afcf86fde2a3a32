"""Colours that are legible in napari's light and dark themes."""

from __future__ import annotations

import numpy as np
from qtpy.QtGui import QColor

__all__ = ["CONTRAST", "contrast", "faint", "legible", "over"]

CONTRAST = 4.5  # WCAG's minimum for text; its 3 for graphics is too low for thin curves


def faint(colour: QColor, alpha: int) -> QColor:
    """Return a colour with an opacity of `alpha` out of 255."""
    translucent = QColor(colour)
    translucent.setAlpha(alpha)
    return translucent


def contrast(one: QColor, other: QColor) -> float:
    """Return the contrast ratio of two colours after WCAG 2: 1 for equal ones, 21 for black and white."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: QColor) -> float:
    red, green, blue, _ = colour.getRgbF()
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def legible(colour: QColor, ground: QColor) -> QColor:
    """Return the colour, lightened on dark or darkened on light until its contrast is `CONTRAST`."""
    hue, saturation, lightness, _ = colour.getHslF()
    # measured: at the same lightness, yellow looks far lighter than blue
    step = 0.01 if _luminance(ground) < 0.18 else -0.01
    while contrast(colour, ground) < CONTRAST and 0 < lightness + step < 1:
        lightness += step
        colour = QColor.fromHslF(max(0.0, hue), saturation, lightness)
    return colour


def over(ground: QColor, colour: QColor) -> QColor:
    """Return a translucent colour composited over a background."""
    share = colour.alphaF()
    mixed = (share * a + (1 - share) * b for a, b in zip(colour.getRgbF()[:3], ground.getRgbF()[:3]))
    return QColor.fromRgbF(*mixed)
