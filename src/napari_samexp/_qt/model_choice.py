"""A combo box of models by name, with a file of one's own as the last entry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog

from napari_samexp._qt.connections import Connections
from napari_samexp._qt.tracking.model_control import _FILE, _title
from napari_samexp.session.models import ModelOffer, model_offers

__all__ = ["ModelChoice"]


class ModelChoice:
    """Fills a combo box and says which model a person picked.

    Parameters
    ----------
    chosen : callable
        Given a name or a path, or an empty text for none.
    none : str, optional
        What the entry for no model is called; there is none otherwise.
    """

    def __init__(
        self, combo: Any, connections: Connections, chosen: Callable[[str], None], none: str | None = None
    ) -> None:
        self._combo, self._chosen = combo, chosen
        self.offers: dict[str, ModelOffer] = {offer.name: offer for offer in model_offers()}
        self.current = ""
        if none is not None:
            combo.addItem(none, "")
        for offer in self.offers.values():
            combo.addItem(_title(offer), offer.name)
        combo.insertSeparator(combo.count())
        combo.addItem("Choose a file …", _FILE)
        connections.add(combo.activated, self._activated)

    def select(self, name: str) -> None:
        """Show a model as the chosen one, without saying that it was picked."""
        self.current = name
        place = self._combo.findData(name)
        if place < 0 and name:
            place = self._combo.count() - 2  # before the line above "Choose a file"
            self._combo.insertItem(place, Path(name).name, name)
        self._combo.setCurrentIndex(place)

    def is_here(self, name: str) -> bool:
        """Whether a model needs no download."""
        offer = self.offers.get(name)
        return offer is None or offer.here

    def _activated(self, place: int) -> None:
        name = self._combo.itemData(place)
        if name == _FILE:
            name, _ = QFileDialog.getOpenFileName(
                self._combo, "Weights of a SAM model", "", "Weights (*.safetensors *.pt *.pth);;All files (*)"
            )
            if not name:
                self.select(self.current)
                return
        if name != self.current:
            self.select(str(name))
            self._chosen(str(name))
