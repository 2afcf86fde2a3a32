"""From clicks to a preview to a recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from napari.layers import Image
from napari.utils.colormaps import DirectLabelColormap

from napari_samexp._qt.connections import Connections
from napari_samexp._qt.image_layers import covers, plane_of, spatial_settings, view_of
from napari_samexp._qt.layer_choice import LayerChoice
from napari_samexp._qt.tracking.panel import Panel
from napari_samexp._qt.tracking.prompt_layers import BACKGROUND, COLOURS, OBJECT, PromptLayers
from napari_samexp._qt.tracking.run_labels import OF_A_DOCK
from napari_samexp.errors import SamexpError
from napari_samexp.session.prompting import MaskPreview
from napari_samexp.session.session import Session
from napari_samexp.types import Prompt

__all__ = ["PromptControl"]


class PromptControl:
    """The prompt's layers, its live preview, and the controls around them.

    Parameters
    ----------
    images : LayerChoice
        The layer to click on.
    say : callable
        Shows one sentence.
    changed : callable
        Told when there may be something else to do next.
    later : callable
        Runs what it is given once the window is idle.
    """

    def __init__(
        self,
        panel: Panel,
        session: Session,
        viewer: Any,
        images: LayerChoice,
        connections: Connections,
        say: Callable[..., None],
        changed: Callable[[], None],
        later: Callable[[Callable[[], None]], None],
    ) -> None:
        self._later = later
        self._panel, self._session, self._viewer = panel, session, viewer
        self._images, self._say, self._told = images, say, changed
        self._made: dict[int, PromptLayers] = {}
        self._preview: Any = None
        self._previewed: PromptLayers | None = None  # whose image the preview lies over
        self._sent: tuple[int, tuple[int, ...]] | None = None  # the image that the session has
        self._telling = False
        self.begun = False
        self.layers: PromptLayers | None = None
        self._connections = connections

    @property
    def prompted(self) -> bool:
        """Whether there is a prompt on what is in view."""
        return not self._session.prompting.prompt.is_empty

    @property
    def covered_by(self) -> str:
        """Name of an image that lies over the image to click on, or an empty text."""
        layers = self._viewer.layers
        if self.layers is None or self.layers.image not in layers:
            return ""
        image = self.layers.image
        # not a slice of napari's list, which is a new list with all its events
        above = [layer for layer in list(layers)[layers.index(image) + 1 :] if isinstance(layer, Image)]
        return next((str(layer.name) for layer in above if covers(layer, image)), "")

    @property
    def to_select(self) -> str:
        """Name of the layer that has to be selected before clicks count, or an empty text if they do."""
        layers, active = self.layers, self._viewer.layers.selection.active
        if layers is None or not layers.alive or active is layers.points:
            return ""
        busy = active is not None and (active is layers.box or OF_A_DOCK in active.metadata)
        return "" if busy else str(layers.points.name)  # who draws or paints knows what is selected

    def begin(self) -> None:
        """Make the image ready to be clicked on."""
        self.begun = True
        self._connect(self._connections)
        self._image_changed(self._images.current)

    def remove(self) -> None:
        """Take the prompts' layers out of the viewer."""
        for layers in list(self._made.values()):
            layers.remove()
        self._made.clear()
        self._drop_preview()

    def record(self, *_: Any) -> None:
        """Make the prompt a recording."""
        try:
            self._session.prompting.record(self._panel.label.value(), self._panel.name.text().strip())
        except SamexpError as error:
            self._say(str(error), error.code)

    def sync(self, *_: Any) -> None:
        """Give the session the prompt on what is in view."""
        layers = self.layers
        if layers is None or not layers.alive:
            self._send_image(None)
            return
        try:
            prompt = layers.prompt(plane_of(layers.image, self._viewer.dims))
            if not prompt.is_empty and not self._send_image(layers.image):
                return
            self._send(prompt)
        except SamexpError as error:
            self._say(str(error), error.code)
        self._told()

    # ---- what happens

    def _connect(self, connections: Connections) -> None:
        panel, prompting = self._panel, self._session.prompting
        connections.add(self._images.changed, self._image_changed)
        connections.add(self._viewer.dims.events.point, self._moved)
        connections.add(self._viewer.layers.events.removed, self._layer_removed)
        connections.add(prompting.preview_changed, self._show_preview)
        connections.add(prompting.prompt_changed, self._prompt_changed)
        connections.add(panel.record.clicked, self.record)
        connections.add(panel.draw_box.clicked, self._draw_box)
        connections.add(panel.clear_prompt.clicked, self._clear)
        connections.add(panel.role.activated, self._arm)
        # the fields would take the keys of the image, such as R, for letters
        connections.add(panel.name.returnPressed, panel.name.clearFocus)
        connections.add(panel.label.lineEdit().returnPressed, panel.label.clearFocus)
        # also where it was chosen already: whoever picks the image wants to click on it, whatever layer is active
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
        layers = PromptLayers(self._viewer, image, self._panel.role.currentText, self._later)
        layers.changed.connect(self.sync)
        layers.role_toggled.connect(self._toggle_role)
        layers.record_asked.connect(self.record)
        self._made[id(image)] = layers
        return layers

    def _layer_removed(self, event: Any) -> None:
        if event.value is self._preview:
            self._preview = self._previewed = None
        for key, layers in list(self._made.items()):
            if not layers.alive:
                del self._made[key]
                if layers is self._previewed:
                    self._drop_preview()
                layers.remove()
        if self.layers is not None and not self.layers.alive:
            self.layers = None
            self.sync()

    def _moved(self, event: Any = None) -> None:
        image = None if self.layers is None else self.layers.image
        # most steps of a slider change nothing here, and must cost nothing
        if image is not None and image.ndim > 2 and len(self.layers.points.data):  # type: ignore[union-attr]
            self.sync()

    def _send_image(self, image: Any) -> bool:
        """Give the session the image in view if it has another; return whether it has it."""
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
            self._say("This frame is still being decoded; click again in a moment.")
            return False
        with self._being_told():  # a new image empties the session's prompt, and not the one on its way
            self._session.prompting.set_image(view.pixels, view.name)
        self._sent = place
        return True

    def _send(self, prompt: Prompt) -> None:
        if self._session.prompting.image is None and prompt.is_empty:
            return
        with self._being_told():
            self._session.prompting.set_prompt(prompt)

    @contextmanager
    def _being_told(self) -> Iterator[None]:
        """Tell what the session does on its own from what it is told here."""
        self._telling = True
        try:
            yield
        finally:
            self._telling = False

    def _prompt_changed(self, prompt: Prompt) -> None:
        # emptied by the session: it is recorded now
        if prompt.is_empty and not self._telling and self.layers is not None and self._sent is not None:
            self.layers.clear()
            self.layers.arm()
            self._panel.name.clear()

    # ---- preview

    def _show_preview(self, preview: MaskPreview | None) -> None:
        self._fill_choices(preview)
        if self.layers is None:
            self._drop_preview()
        elif preview is None:
            self._blank_preview()
        else:
            self._draw(preview.mask())
        self._told()

    def _draw(self, mask: Any) -> None:
        labels = mask.view(np.uint8)
        over = self._previewed is self.layers and self._preview is not None
        if not over or self._preview.data.shape != labels.shape:
            self._drop_preview()
            self._preview, self._previewed = self._add_preview(labels), self.layers
            return
        # in place: new data would make napari measure and list everything anew
        self._preview.data[...] = labels
        if self._preview.visible:
            self._preview.refresh(extent=False, thumbnail=False)
        else:
            self._preview.visible = True

    def _add_preview(self, labels: Any) -> Any:
        assert self.layers is not None
        points = self.layers.points
        active = self._viewer.layers.selection.active
        layer = self._viewer.add_labels(
            labels.copy(),
            name="mask preview",
            opacity=0.5,
            # the colour of clicks on the object: a label's own may be that of what it covers
            colormap=DirectLabelColormap(color_dict={1: COLOURS[OBJECT], None: "transparent"}),
            **spatial_settings(self.layers.image, 2),
        )
        layer.editable = False
        self._viewer.layers.move(self._viewer.layers.index(layer), self._viewer.layers.index(points))
        self._viewer.layers.selection.active = active
        return layer

    def _blank_preview(self) -> None:
        """Show no mask; the layer stays for the next, since napari takes long to add and to remove one."""
        if self._preview is not None and self._preview.visible:
            self._preview.data[...] = 0  # it may be made visible by hand
            self._preview.visible = False

    def _drop_preview(self) -> None:
        if self._preview is not None and self._preview in self._viewer.layers:
            self._viewer.layers.remove(self._preview)
        self._preview = self._previewed = None

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
        try:
            self._session.prompting.choose_mask(index)
        except SamexpError as error:
            self._say(str(error), error.code)

    def _toggle_role(self) -> None:
        other = BACKGROUND if self._panel.role.currentText() == OBJECT else OBJECT
        self._panel.role.setCurrentText(other)

    def _arm(self, *_: Any) -> None:
        if self.layers is not None and self.layers.alive:
            self.layers.arm()

    def _draw_box(self, *_: Any) -> None:
        if self.layers is None:
            self._say("Open an image first; a box is drawn on it.")
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
        try:
            if self._send_image(layers.image):
                self._session.prompting.hover((float(x), float(y)))
        except SamexpError as error:
            self._say(str(error), error.code)
