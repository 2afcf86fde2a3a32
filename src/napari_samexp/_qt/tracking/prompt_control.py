"""Clicks become a prompt, a preview and a recording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from napari.layers import Image

from napari_samexp._qt.dock import Dock
from napari_samexp._qt.image_layers import covers, plane_of, view_of
from napari_samexp._qt.layer_choice import LayerChoice
from napari_samexp._qt.tracking.preview_layer import PreviewLayer
from napari_samexp._qt.tracking.prompt_layers import BACKGROUND, OBJECT, PromptLayers
from napari_samexp._qt.tracking.run_labels import OF_A_DOCK
from napari_samexp.session.prompting import MaskPreview
from napari_samexp.session.session import Session
from napari_samexp.types import Prompt

__all__ = ["PromptControl"]


class PromptControl:
    """The layers to click on, the live preview, and the controls around them.

    Parameters
    ----------
    dock : Dock
    images : LayerChoice
        The image to click on.

    Attributes
    ----------
    begun : bool
        Whether clicks are taken.
    layers : PromptLayers or None
        Those of the chosen image.
    preview : PreviewLayer
    """

    def __init__(self, dock: Dock, images: LayerChoice) -> None:
        self._dock, self._panel, self._viewer, self._images = dock, dock.panel, dock.viewer, images
        self._session: Session = dock.session
        self._made: dict[int, PromptLayers] = {}
        self._sent: tuple[int, tuple[int, ...]] | None = None  # image and plane that the session has
        self._sending = False
        self.preview = PreviewLayer(dock.viewer)
        self.begun = False
        self.layers: PromptLayers | None = None

    @property
    def prompted(self) -> bool:
        """Whether there is a prompt on the plane in view."""
        return not self._session.prompting.prompt.is_empty

    @property
    def covered_by(self) -> str:
        """The name of an image that covers the one to click on, or an empty string."""
        layers = self._viewer.layers
        if self.layers is None or self.layers.image not in layers:
            return ""
        image = self.layers.image
        # a slice of napari's list itself would be a new event list
        above = [layer for layer in list(layers)[layers.index(image) + 1 :] if isinstance(layer, Image)]
        return next((str(layer.name) for layer in above if covers(layer, image)), "")

    @property
    def to_select(self) -> str:
        """The name of the layer to select so that clicks count, or an empty string if they do."""
        layers, active = self.layers, self._viewer.layers.selection.active
        if layers is None or not layers.alive or active is layers.points:
            return ""
        busy = active is not None and (active is layers.box or OF_A_DOCK in active.metadata)
        return "" if busy else str(layers.points.name)  # who draws or paints selected that layer on purpose

    def begin(self) -> None:
        """Take clicks from now on."""
        self.begun = True
        self._connect()
        self._image_changed(self._images.current)

    def remove(self) -> None:
        """Remove the prompts' layers from the viewer."""
        for layers in list(self._made.values()):
            layers.remove()
        self._made.clear()
        self.preview.remove()

    def record(self, *_: Any) -> None:
        """Record the prompt."""
        with self._dock.errors_shown():
            self._session.prompting.record(self._panel.label.value(), self._panel.name.text().strip())

    def sync(self, *_: Any) -> None:
        """Send the prompt on the plane in view to the session."""
        layers = self.layers
        if layers is None or not layers.alive:
            self._send_image(None)
            return
        with self._dock.errors_shown():
            prompt = layers.prompt(plane_of(layers.image, self._viewer.dims))
            if not prompt.is_empty and not self._send_image(layers.image):
                return
            self._send(prompt)
        self._dock.refresh()

    # ---- what happens

    def _connect(self) -> None:
        panel, prompting, connections = self._panel, self._session.prompting, self._dock.connections
        connections.add(self._images.changed, self._image_changed)
        connections.add(self._viewer.dims.events.point, self._moved)
        connections.add(self._viewer.layers.events.removed, self._layer_removed)
        connections.add(prompting.preview_changed, self._show_preview)
        connections.add(prompting.prompt_changed, self._prompt_changed)
        connections.add(panel.record.clicked, self.record)
        connections.add(panel.draw_box.clicked, self._draw_box)
        connections.add(panel.clear_prompt.clicked, self._clear)
        connections.add(panel.role.activated, self._arm)
        # Enter leaves the field, so that keys such as R reach the image again
        connections.add(panel.name.returnPressed, panel.name.clearFocus)
        connections.add(panel.label.lineEdit().returnPressed, panel.label.clearFocus)
        # also if it is chosen already: who picks an image wants to click on it
        connections.add(panel.image.activated, self._arm)
        connections.add(panel.mask_choice.activated, self._choose_mask)
        self._viewer.mouse_move_callbacks.append(self._hovered)
        connections.later(lambda: self._viewer.mouse_move_callbacks.remove(self._hovered))

    def _image_changed(self, image: Any) -> None:
        if image is None:
            self.layers = None
        else:
            self.layers = self._made.get(id(image))
            if self.layers is None or not self.layers.alive:
                self.layers = self._make(image)
            self.layers.arm()
        self.sync()

    def _make(self, image: Any) -> PromptLayers:
        layers = PromptLayers(self._viewer, image, self._panel.role.currentText, self._dock.window_thread)
        layers.changed.connect(self.sync)
        layers.role_toggled.connect(self._toggle_role)
        layers.record_asked.connect(self.record)
        self._made[id(image)] = layers
        return layers

    def _layer_removed(self, event: Any) -> None:
        if event.value is self.preview.layer:
            self.preview.forget()
        for key, layers in list(self._made.items()):
            if not layers.alive:
                del self._made[key]
                self.preview.remove_with(layers)
                layers.remove()
        if self.layers is not None and not self.layers.alive:
            self.layers = None
            self.sync()

    def _moved(self, event: Any = None) -> None:
        image = None if self.layers is None else self.layers.image
        # most slider steps change nothing here, and must cost nothing
        if image is not None and image.ndim > 2 and len(self.layers.points.data):  # type: ignore[union-attr]
            self.sync()

    def _send_image(self, image: Any) -> bool:
        """Send the image in view if the session has another; return whether the session has it."""
        if image is None:
            if self._sent is not None:
                self._sent = None
                self._session.prompting.set_image(None)
            return False
        place = (id(image), plane_of(image, self._viewer.dims))
        if place == self._sent:
            return True
        view = view_of(image, self._viewer.dims)
        if view is None:
            self._dock.notify("This frame is still being decoded; click again in a moment.")
            return False
        with self._sending_to_session():  # a new image clears the session's prompt, but not the clicks
            self._session.prompting.set_image(view.pixels, view.name)
        self._sent = place
        return True

    def _send(self, prompt: Prompt) -> None:
        if self._session.prompting.image is None and prompt.is_empty:
            return
        with self._sending_to_session():
            self._session.prompting.set_prompt(prompt)

    @contextmanager
    def _sending_to_session(self) -> Iterator[None]:
        """Mark changes of the session that come from here."""
        self._sending = True
        try:
            yield
        finally:
            self._sending = False

    def _prompt_changed(self, prompt: Prompt) -> None:
        # cleared by the session, because it is recorded
        if prompt.is_empty and not self._sending and self.layers is not None and self._sent is not None:
            self.layers.clear()
            self.layers.arm()
            self._panel.name.clear()

    # ---- preview

    def _show_preview(self, preview: MaskPreview | None) -> None:
        self._fill_choices(preview)
        if self.layers is None:
            self.preview.remove()
        elif preview is None:
            self.preview.hide()
        else:
            self.preview.show(preview.mask(), self.layers)
        self._dock.refresh()

    def _fill_choices(self, preview: MaskPreview | None) -> None:
        combo = self._panel.mask_choice
        combo.clear()
        if preview is None:
            return
        for index, iou in enumerate(preview.iou):
            best = " · best" if index == preview.best else ""
            combo.addItem(f"{index + 1} · IoU {iou:.2f}{best}")
        combo.setCurrentIndex(preview.chosen)

    # ---- controls

    def _choose_mask(self, index: int) -> None:
        with self._dock.errors_shown():
            self._session.prompting.choose_mask(index)

    def _toggle_role(self) -> None:
        other = BACKGROUND if self._panel.role.currentText() == OBJECT else OBJECT
        self._panel.role.setCurrentText(other)

    def _arm(self, *_: Any) -> None:
        if self.layers is not None and self.layers.alive:
            self.layers.arm()

    def _draw_box(self, *_: Any) -> None:
        if self.layers is None:
            self._dock.notify("Open an image first; a box is drawn on it.")
        else:
            self.layers.add_box_layer()

    def _clear(self, *_: Any) -> None:
        if self.layers is not None:
            self.layers.clear()
            self.layers.arm()

    def _hovered(self, viewer: Any, event: Any) -> None:
        layers = self.layers
        if not self._session.settings.hover or layers is None or not layers.alive:
            return
        if viewer.layers.selection.active is not layers.points:
            self._session.prompting.hover(None)
            return
        y, x = layers.points.world_to_data(event.position)[-2:]
        with self._dock.errors_shown():
            if self._send_image(layers.image):
                self._session.prompting.hover((float(x), float(y)))
