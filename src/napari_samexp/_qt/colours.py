"""Colours that can be read in napari's light and dark themes."""

from __future__ import annotations

import numpy as np
from qtpy.QtGui import QColor

__all__ = ["CONTRAST", "contrast", "faint", "legible", "over"]

CONTRAST = 4.5  # to the ground: thin curves need as much as WCAG asks of words, not the 3 of graphics


def faint(colour: QColor, alpha: int) -> QColor:
    """Return a colour that lets its ground through, but for `alpha` of 255."""
    through = QColor(colour)
    through.setAlpha(alpha)
    return through


def contrast(one: QColor, other: QColor) -> float:
    """Return the contrast of two colours as WCAG 2 defines it: 1 for equal ones, 21 for black and white."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: QColor) -> float:
    red, green, blue, _ = colour.getRgbF()
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def legible(colour: QColor, ground: QColor) -> QColor:
    """Return the colour, lighter on dark and darker on light until it stands out: labels' own may not."""
    hue, saturation, lightness, _ = colour.getHslF()
    # measured, not bounded: at one lightness, yellow is far lighter to the eye than blue
    step = 0.01 if _luminance(ground) < 0.18 else -0.01
    while contrast(colour, ground) < CONTRAST and 0 < lightness + step < 1:
        lightness += step
        colour = QColor.fromHslF(max(0.0, hue), saturation, lightness)
    return colour


def over(ground: QColor, colour: QColor) -> QColor:
    """Return what a colour that lets some of the ground through looks like on it."""
    share = colour.alphaF()
    mixed = (share * a + (1 - share) * b for a, b in zip(colour.getRgbF()[:3], ground.getRgbF()[:3]))
    return QColor.fromRgbF(*mixed)
