"""A combo box of models by name; its last entry opens a file of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog

from napari_samexp._qt.connections import Connections
from napari_samexp._urls import redacted_url
from napari_samexp.session.models import ModelOffer, model_offers

__all__ = ["ModelChoice"]

_FILE = "a file of your own"
WEIGHTS_FILES = "Weights (*.safetensors *.pt *.pth);;All files (*)"


class ModelChoice:
    """Fills a combo box, and reports which model a person picked.

    Parameters
    ----------
    combo : QComboBox
    connections : Connections
    picked : callable
        Called with a name or a path, or with an empty string for no model.
    none : str, optional
        The text of the entry for no model; without it there is no such entry.
    """

    def __init__(
        self, combo: Any, connections: Connections, picked: Callable[[str], None], none: str | None = None
    ) -> None:
        self._combo, self._picked = combo, picked
        self._offers = {offer.name: offer for offer in model_offers()}
        self.current = ""
        if none is not None:
            combo.addItem(none, "")
        for offer in self._offers.values():
            combo.addItem(_title(offer), offer.name)
        combo.insertSeparator(combo.count())
        combo.addItem("Choose a file …", _FILE)
        connections.add(combo.activated, self._activated)

    def select(self, name: str) -> None:
        """Show a model as the current one, without reporting it as picked."""
        self.current = name
        place = self._combo.findData(name)
        if place < 0 and name:
            place = self._combo.count() - 2  # above the separator
            self._combo.insertItem(place, Path(redacted_url(name)).name, name)
        self._combo.setCurrentIndex(place)

    def is_here(self, name: str) -> bool:
        """Whether a model needs no download."""
        offer = self._offers.get(name)
        return offer is None or offer.here

    def _activated(self, place: int) -> None:
        name = self._combo.itemData(place)
        if name == _FILE:
            name, _ = QFileDialog.getOpenFileName(self._combo, "Weights of a SAM model", "", WEIGHTS_FILES)
            if not name:
                self.select(self.current)
                return
        self.select(str(name))
        self._picked(str(name))


def _title(offer: ModelOffer) -> str:
    if not offer.bytes:
        return f"{offer.name} · bundled · {offer.licence}"
    download = "" if offer.here else " · downloads"
    advice = " · suggested without a GPU" if offer.suggested else ""
    return f"{offer.name} · {offer.bytes / 1e6:.0f} MB · {offer.licence}{download}{advice}"
