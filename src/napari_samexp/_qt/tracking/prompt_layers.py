"""The layers of a prompt. Only here, napari's (y, x) becomes (x, y)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_samexp._qt.image_layers import spatial_settings
from napari_samexp._qt.shortcuts import TRACKING
from napari_samexp.errors import PromptError
from napari_samexp.types import Prompt

__all__ = ["BACKGROUND", "COLOURS", "OBJECT", "PromptLayers"]

OBJECT, BACKGROUND = "object", "background"
COLOURS = {OBJECT: "#2ecc71", BACKGROUND: "#e74c3c"}
SYMBOLS = {OBJECT: "disc", BACKGROUND: "x"}
_UNDO_STEPS = 200

Snapshot = tuple[npt.NDArray[np.float64], tuple[str, ...]]


class PromptLayers:
    """The Points layer of a prompt on an Image layer, and a Shapes layer for a box if one is drawn.

    The feature ``role`` of a point is "object" or "background", and sets its colour and symbol.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    image : napari.layers.Image
        The image to click on.
    role : callable
        Returns the role of the next left click.
    later : callable, optional
        Runs a call once the event loop is idle.
    """

    changed = Signal()
    role_toggled = Signal()
    record_asked = Signal()

    def __init__(
        self,
        viewer: Any,
        image: Any,
        role: Callable[[], str],
        later: Callable[[Callable[[], None]], None] = lambda call: call(),
    ) -> None:
        self._later = later
        self._viewer = viewer
        self._image = image
        self._role = role
        self._quiet = False
        self._history: list[Snapshot] = []
        self.box: Any = None
        self.points = self._add_points()
        self._last_snapshot = self._snapshot()
        self._connect()

    @property
    def image(self) -> Any:
        """The image's layer."""
        return self._image

    @property
    def alive(self) -> bool:
        """Whether the points and the image are still in the viewer."""
        return self.points in self._viewer.layers and self._image in self._viewer.layers

    def prompt(self, plane: tuple[int, ...], extra: tuple[float, float] | None = None) -> Prompt:
        """Return the points and the box on one plane of the image.

        Parameters
        ----------
        plane : tuple of int
            The index on every axis before (y, x).
        extra : (y, x), optional
            One more point, such as the one under the mouse.

        Raises
        ------
        PromptError
            If a point is not a finite number.
        """
        here = self._on_plane(self.points.data, plane)
        roles = [self._roles()[i] for i in np.flatnonzero(here)]
        yx = np.asarray(self.points.data)[here][:, -2:]
        if extra is not None:
            yx, roles = np.vstack([yx, extra]), [*roles, self._role()]
        labels = np.array([role == OBJECT for role in roles], np.int64)
        return Prompt(yx[:, ::-1].astype(np.float32), labels, self._box_on(plane))

    def add_box_layer(self) -> Any:
        """Return the Shapes layer for a box, in drawing mode."""
        if self.box is None or self.box not in self._viewer.layers:
            self.box = self._viewer.add_shapes(
                ndim=self._image.ndim,
                name=f"{self._image.name} box",
                edge_color=COLOURS[OBJECT],
                face_color="transparent",
                edge_width=max(1.0, self._side() / 250),
                **spatial_settings(self._image, self._image.ndim),
            )
            self.box.events.data.connect(self._box_changed)
            self.box.mouse_drag_callbacks.append(self._drawing)
            # R in a Shapes layer would start another rectangle
            self.box.bind_key(TRACKING["record"].keys, lambda layer: self.record_asked.emit(), overwrite=True)
        self.box.mode = "add_rectangle"
        self._viewer.layers.selection.active = self.box
        return self.box

    def arm(self) -> None:
        """Make the points the active layer, so that the next click adds one."""
        self._viewer.layers.selection.active = self.points
        self.points.mode = "add"

    def add_point(self, x: float, y: float, plane: tuple[int, ...], role: str) -> None:
        """Add a point at (x, y), in pixels of the image."""
        self._set_next_role(role)
        self.points.add(np.array([*plane, y, x], float))

    def clear(self) -> None:
        """Remove all points and the box; `undo` brings the points back."""
        with self._one_change():
            self.points.selected_data = set(range(len(self.points.data)))
            self.points.remove_selected()
            if self.box is not None and self.box in self._viewer.layers:
                self.box.data = []

    def undo(self, *_: Any) -> None:
        """Undo the last change to the points."""
        if not self._history:
            return
        data, roles = self._history.pop()
        with self._one_change(remember=False):
            self.points.selected_data = set()
            self.points.data = data
            self.points.features = _features(roles)

    def remove_last(self, *_: Any) -> None:
        """Remove the selected points, or else the newest."""
        count = len(self.points.data)
        if count and not self.points.selected_data:
            self.points.selected_data = {count - 1}
        self.points.remove_selected()

    def remove(self) -> None:
        """Disconnect, and remove the layers from the viewer."""
        self.points.events.data.disconnect(self._points_changed)
        self.points.events.features.disconnect(self._features_changed)
        with suppress(ValueError):
            self.points.mouse_drag_callbacks.remove(self._pressed)
        for layer in (self.points, self.box):
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def _add_points(self) -> Any:
        return self._viewer.add_points(
            ndim=self._image.ndim,
            name=f"{self._image.name} prompt",
            features=_features(()),
            feature_defaults=_features((OBJECT,)),
            face_color="role",
            face_color_cycle=[COLOURS[OBJECT], COLOURS[BACKGROUND]],
            border_color="white",
            border_width=0.12,
            size=max(3.0, self._side() / 45),
            **spatial_settings(self._image, self._image.ndim),
        )

    def _connect(self) -> None:
        # first, so that the role is set before napari adds the point
        self.points.mouse_drag_callbacks.insert(0, self._pressed)
        self.points.events.data.connect(self._points_changed)
        self.points.events.features.connect(self._features_changed)
        for name, call in (
            ("remove_click", self.remove_last),
            ("undo_click", self.undo),
            ("role", lambda layer: self.role_toggled.emit()),
        ):
            self.points.bind_key(TRACKING[name].keys, call, overwrite=True)

    def _pressed(self, layer: Any, event: Any) -> None:
        other = "Alt" in event.modifiers or "Control" in event.modifiers or event.button == 2
        self._set_next_role(BACKGROUND if other else self._role())

    def _set_next_role(self, role: str) -> None:
        # napari also applies new defaults to selected points
        self.points.selected_data = set()
        self.points.feature_defaults = _features((role,))

    def _points_changed(self, event: Any) -> None:
        if event.action in ("added", "removed", "changed") and not self._quiet:
            self._changed(remember=True)

    def _features_changed(self, event: Any = None) -> None:
        if (
            not self._quiet
            and len(self._roles()) == len(self.points.data)
            and self._snapshot()[1] != self._last_snapshot[1]
        ):
            self._changed(remember=True)

    def _drawing(self, layer: Any, event: Any) -> Iterator[None]:
        """Return to adding points once a box is drawn."""
        yield
        while event.type == "mouse_move":
            yield
        # once napari has finished drawing
        self._later(lambda: self.arm() if self.alive and len(layer.data) else None)

    def _box_changed(self, event: Any) -> None:
        if event.action in ("added", "removed", "changed") and not self._quiet:
            if event.action == "added" and len(self.box.data) > 1:
                self._quiet = True
                self.box.data = self.box.data[-1:]  # a prompt has one box: the newest
                self._quiet = False
            self.changed.emit()

    @contextmanager
    def _one_change(self, remember: bool = True) -> Iterator[None]:
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False
        self._changed(remember)

    def _changed(self, remember: bool) -> None:
        if remember:
            self._history = [*self._history, self._last_snapshot][-_UNDO_STEPS:]
        self._last_snapshot = self._snapshot()
        self._follow_roles()
        self.changed.emit()

    def _follow_roles(self) -> None:
        self._quiet = True
        if len(self.points.data):
            self.points.refresh_colors(update_color_mapping=False)
            symbols = [SYMBOLS[role] for role in self._roles()]
            if [str(symbol) for symbol in self.points.symbol] != symbols:  # setting them redraws everything
                self.points.symbol = symbols
        self._quiet = False

    def _snapshot(self) -> Snapshot:
        return np.array(self.points.data, float), tuple(self._roles())

    def _roles(self) -> list[str]:
        return [BACKGROUND if role == BACKGROUND else OBJECT for role in self.points.features["role"]]

    def _side(self) -> float:
        data = self._image.data[0] if self._image.multiscale else self._image.data
        end = -1 if self._image.rgb else None
        return float(min(data.shape[:end][-2:]))

    @staticmethod
    def _on_plane(data: Any, plane: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        places = np.asarray(data)[:, :-2]
        return np.asarray((np.round(places) == np.array(plane, float)).all(axis=1))

    def _box_on(self, plane: tuple[int, ...]) -> npt.NDArray[np.float32] | None:
        if self.box is None or self.box not in self._viewer.layers or not len(self.box.data):
            return None
        corners = np.asarray(self.box.data[-1], float)
        if not self._on_plane(corners, plane).all():
            return None
        (top, left), (bottom, right) = corners[:, -2:].min(0), corners[:, -2:].max(0)
        if left >= right or top >= bottom:
            raise PromptError("The box is empty; draw it from corner to corner.")
        return np.array([left, top, right, bottom], np.float32)


def _features(roles: tuple[str, ...]) -> Any:
    import pandas as pd  # slow; the dock imports it on a thread

    return pd.DataFrame({"role": pd.Categorical(list(roles), categories=[OBJECT, BACKGROUND])})
