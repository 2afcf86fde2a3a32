"""Ground, light and camera: from things on their paths to a frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.scenes.config import OBJECT_ID, Rng, SceneConfig
from training.scenes.textures import NOISE_SIDE, Surface, clip_in_place, noise_bank, paint_surface, sine
from training.scenes.things import Path, Thing, stamp

Images = list[tuple[np.ndarray, np.ndarray]]  # each with its instance map


@dataclass(frozen=True, eq=False)
class Lens:
    """What a camera makes of the light that reaches it."""

    blur: int = 0  # passes of a narrow blur
    smear: tuple[int, int, int] = (0, 0, 0)  # step to the right and down in pixels, number of steps
    curve: float = 0.0  # contrast in the middle tones
    black: float = 0.0
    white: float = 1.0
    photons: float = 0.0  # noise that grows with the root of the light
    levels: int = 255  # of the sensor, before black and white are stretched

    def look(self, canvas: np.ndarray, gray: bool, noise: np.ndarray) -> np.ndarray:
        """(3, H, W) light of about 0 to 1 to the same; `noise` has one or three planes."""
        if gray:
            canvas = canvas[:1]
        for _ in range(self.blur):
            _blur(canvas)
        right, down, steps = self.smear
        if steps:
            total = canvas.copy()
            for k in range(-(steps // 2), steps - steps // 2 + 1):
                if k:
                    total += np.roll(canvas, (k * down, k * right), (1, 2))
            canvas = total * np.float32(1 / (steps + 1))
        if self.curve:
            clip_in_place(canvas, 0, 1)
            canvas = canvas + np.float32(self.curve) * canvas * (1 - canvas)
        if self.photons:
            canvas = canvas + np.float32(self.photons) * np.sqrt(clip_in_place(canvas, 0, 2)) * noise
        if self.levels < 255:
            canvas = np.rint(canvas * np.float32(self.levels)) * np.float32(1 / self.levels)
        if (self.black, self.white) != (0.0, 1.0):
            canvas = np.float32(self.black) + np.float32(self.white - self.black) * canvas
        return canvas


def _blur(canvas: np.ndarray) -> None:
    """Blur (C, H, W) in place by 1 2 1 along both axes; the border stays."""
    for axis in (1, 2):
        x = np.swapaxes(canvas, axis, 2)
        middle = x[..., :-2] + x[..., 2:]
        x[..., 1:-1] *= np.float32(0.5)
        x[..., 1:-1] += np.float32(0.25) * middle


def _draw_lens(rng: Rng, config: SceneConfig, gray: bool) -> Lens:
    strength = config.effects
    if not strength:
        return Lens()
    blur = int(rng.integers(1, 1 + max(1, round(config.side / 64)))) if rng.random() < 0.35 * strength else 0
    smear = (0, 0, 0)
    if rng.random() < 0.12 * strength:
        steps = int(rng.integers(1, 2 + config.side // 64))
        smear = (int(rng.integers(-1, 2)), int(rng.integers(-1, 2)), steps)
    curve = 0.5 * strength * rng.uniform(-1, 1) if rng.random() < 0.5 else 0.0
    low, high, levels = 0.0, 1.0, 255
    if rng.random() < (0.4 if gray else 0.2) * strength:
        span = rng.uniform(0.3 if gray else 0.6, 0.95)
        low = rng.uniform(0, 1 - span)
        high = low + span
    photons = 0.02 + 0.1 * rng.random() ** 2 if rng.random() < (0.6 if gray else 0.2) * strength else 0.0
    if gray and rng.random() < 0.3:
        levels = int(rng.integers(24, 128))  # eight bits that the image hardly used, stretched later
    return Lens(blur, smear, curve, low, high, photons * min(strength, 1.0), levels)


@dataclass(eq=False)
class Scene:
    """Everything that stands still or moves in a row of frames; `cast` is in order of depth, nearest last."""

    ground: np.ndarray  # (3, H + margin, W + margin)
    drift: np.ndarray  # (T, 2) where the frame's corner is on the ground
    light: np.ndarray  # (3, H, W) gain
    flicker: np.ndarray  # (T,)
    grain: float
    gray: bool
    offsets: np.ndarray  # (T, 2) into the bank of noise
    lens: Lens
    carried: bool  # whether things move with the ground when the camera does
    shake: np.ndarray  # (T, 2) pixels
    cast: list[tuple[int, Thing, Path]]


def _noise(gray: bool, offset: np.ndarray, side: int) -> np.ndarray:
    bank = noise_bank()[: 1 if gray else 3]
    if side > NOISE_SIDE:
        repeats = -(-side // (2 * NOISE_SIDE)) + 1
        bank = np.tile(bank, (1, repeats, repeats))
    return bank[:, offset[0] : offset[0] + side, offset[1] : offset[1] + side]


def paint_frame(scene: Scene, t: int) -> tuple[np.ndarray, np.ndarray, int]:
    """A frame, its instance map, and how many pixels the object would show with nothing before it."""
    side = scene.light.shape[-1]
    x, y = scene.drift[t] + scene.shake[t]
    canvas = scene.ground[:, y : y + side, x : x + side].copy()
    ids = np.zeros((side, side), np.uint8)
    alone = 0
    for number, thing, path in scene.cast:
        covered = stamp(canvas, ids, thing, path, t, number)
        if number == OBJECT_ID:
            alone = covered
    canvas *= scene.light * np.float32(scene.flicker[t])
    noise = _noise(scene.gray, scene.offsets[t], side)
    canvas = np.broadcast_to(scene.lens.look(canvas, scene.gray, noise), canvas.shape) * np.float32(255)
    canvas += np.float32(scene.grain * 255) * noise
    clip_in_place(canvas, 0, 255)
    image = np.empty((side, side, 3), np.uint8)
    for k in range(3):
        image[..., k] = canvas[k]
    return image, ids, alone


def paint_clip(scene: Scene, start: int) -> tuple[np.ndarray, np.ndarray]:
    """The frames from one on, (T, H, W, 3), and their instance maps, (T, H, W)."""
    painted = [paint_frame(scene, t)[:2] for t in range(start, len(scene.drift))]
    return np.stack([image for image, _ in painted]), np.stack([ids for _, ids in painted])


def _spread_ground(rng: Rng, surface: Surface, other: Surface | None, side: int, margin: int) -> np.ndarray:
    """Ground a little larger than the image, so that the camera can drift over it."""
    n = side + margin
    unit = n * (0.1 + 0.25 * rng.random())
    axis = (np.arange(n, dtype=np.float32) - n / 2) / np.float32(unit)
    x, y = np.tile(axis, (n, 1)), np.repeat(axis, n).reshape(n, n)
    rgb = np.empty((3, n, n), np.float32)
    paint_surface(surface, x, y, rgb)
    # A slow change of colour, towards the pattern's own third colour.
    slow = sine(x, y, float(rng.random()), n / unit * (0.8 + rng.random()), float(rng.random()))
    slow = np.float32(0.2) + np.float32(0.2) * slow
    for plane, colour in zip(rgb, surface.colours[2]):
        plane += slow * (colour - plane)
    if other is not None:  # beyond a wavy line
        turn = float(rng.random())
        bend = np.float32(0.3) * sine(x, y, turn + 0.25, 2 + 2 * float(rng.random()), float(rng.random()))
        across = np.float32(math.cos(2 * math.pi * turn)) * x + np.float32(math.sin(2 * math.pi * turn)) * y
        beyond = across + bend > rng.uniform(-1, 1)
        part = np.empty((3, np.count_nonzero(beyond)), np.float32)
        paint_surface(other, x[beyond], y[beyond], part)
        rgb[:, beyond] = part
    return rgb


def _draw_light(rng: Rng, config: SceneConfig, gray: bool) -> np.ndarray:
    strength = config.appearance
    gain = math.exp(0.3 * strength * rng.uniform(-1, 0.6))
    tint = np.ones(3) if gray else np.exp(0.12 * strength * rng.uniform(-1, 1, 3))
    axis = np.linspace(-1, 1, config.side, dtype=np.float32)
    heading, slope = rng.uniform(0, 2 * math.pi), 0.2 * min(strength, 1.5) * rng.random()
    plane = 1 + np.float32(slope * math.cos(heading)) * axis[None, :]
    plane = plane + np.float32(slope * math.sin(heading)) * axis[:, None]
    if config.effects and rng.random() < 0.4:
        plane = plane * _uneven(rng, min(config.effects, 1.0), axis)
    return np.stack([plane * np.float32(gain * t) for t in tint])


def _uneven(rng: Rng, effects: float, axis: np.ndarray) -> np.ndarray:
    """Gain (H, W) of a lamp, of the dark corners of a lens, or of the edge of a shadow."""
    kind, strong = rng.random(), effects * rng.uniform(0.1, 0.5)
    at = rng.uniform(-0.8, 0.8, 2)
    x, y = axis[None, :] - np.float32(at[0]), axis[:, None] - np.float32(at[1])
    if kind < 0.6:
        return 1 + np.float32(strong) * (np.exp(-2 * (x**2 + y**2)) - np.float32(0.5))
    turn, sharp = rng.uniform(0, 2 * math.pi), np.float32(rng.uniform(3, 30))
    across = np.float32(math.cos(turn)) * x + np.float32(math.sin(turn)) * y
    return 1 - np.float32(strong) * clip_in_place(across * sharp, 0, 1)


def draw_scene(rng: Rng, config: SceneConfig, frames: int, grounds: Sequence[Surface], gray: bool) -> Scene:
    """A scene with no things in it yet."""
    margin = max(2, config.side // 6)
    t = np.arange(frames)[:, None]
    speed = 0.02 * margin * config.motion * rng.uniform(-1, 1, 2) * (rng.random() < 0.6)
    phase = rng.uniform(0, 2 * math.pi, 2)
    drift = np.rint((np.sin(phase + speed * t) + 1) / 2 * margin).astype(int)
    shake = np.zeros((frames, 2), int)
    if config.effects and config.motion and rng.random() < 0.25:
        most = max(1, config.side // 64)
        shake = np.clip(drift + rng.integers(-most, most + 1, (frames, 2)), 0, margin) - drift
    return Scene(
        _spread_ground(rng, grounds[0], grounds[1] if len(grounds) > 1 else None, config.side, margin),
        drift,
        _draw_light(rng, config, gray),
        1 + 0.02 * config.motion * rng.uniform(-1, 1, frames),
        float(rng.uniform(0.0, 0.03)),
        gray,
        rng.integers(0, NOISE_SIDE, (frames, 2)),
        _draw_lens(rng, config, gray),
        bool(config.effects and rng.random() < 0.5),
        shake,
        [],
    )
