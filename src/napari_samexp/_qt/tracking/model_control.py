"""Choosing and loading the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtWidgets import QFileDialog

from napari_samexp._qt.connections import Connections
from napari_samexp._qt.text import tooltip
from napari_samexp._qt.tracking.panel import Panel
from napari_samexp._urls import redacted_url
from napari_samexp.errors import SamexpError
from napari_samexp.session.models import ModelOffer, ModelState, model_offers
from napari_samexp.session.session import Session

__all__ = ["ModelControl", "loading_words"]

_FILE = "a file of your own"


class ModelControl:
    """The combo box of models, and what it says of loading.

    Parameters
    ----------
    say : callable
        Shows one sentence.
    """

    def __init__(
        self, panel: Panel, session: Session, connections: Connections, say: Callable[..., None]
    ) -> None:
        self._panel, self._session, self._say = panel, session, say
        self._offers = {offer.name: offer for offer in model_offers()}
        self._fill()
        connections.add(panel.model.activated, self._chosen)
        connections.add(session.models.changed, self._show)

    def begin(self) -> None:
        """Load the model that was used last, unless that would download something unasked."""
        name = self._session.settings.model
        self._select(name)
        offer = self._offers.get(name)
        if offer is None or offer.here:
            self._load(name)
        else:
            self._panel.model.setCurrentIndex(-1)

    def _fill(self) -> None:
        combo = self._panel.model
        for offer in self._offers.values():
            combo.addItem(_title(offer), offer.name)
        combo.insertSeparator(combo.count())
        combo.addItem("Choose a file …", _FILE)

    def _chosen(self, place: int) -> None:
        name = self._panel.model.itemData(place)
        if name == _FILE:
            name = self._ask_file()
        if name:
            self._load(name)
        else:
            self._select(self._session.models.state.name)

    def _ask_file(self) -> str:
        path, _ = QFileDialog.getOpenFileName(
            self._panel,
            "Weights of SAM 2, SAM 2.1 or EdgeTAM",
            "",
            "Weights (*.safetensors *.pt *.pth);;All files (*)",
        )
        return str(path)

    def _load(self, name: str) -> None:
        try:
            self._session.load_model(name)
        except SamexpError as error:
            self._say(str(error), error.code)

    def _select(self, name: str) -> None:
        combo = self._panel.model
        place = combo.findData(name)
        if place < 0 and name:
            combo.insertItem(0, Path(redacted_url(name)).name, name)
            place = 0
        combo.setCurrentIndex(place)

    def _show(self, state: ModelState) -> None:
        if state.name:
            self._select(state.name)
        if state.info is not None:
            info = state.info
            self._panel.model.setToolTip(
                tooltip(
                    f"{info.name} on {info.device} ({info.dtype}), {info.parameters / 1e6:.1f} million parameters.\n"
                    "Choose another to load it; official ones are downloaded once."
                )
            )


def loading_words(state: ModelState) -> str:
    """Return how far loading is, in words."""
    if state.doing == "bytes" and state.total:
        return f"downloaded {state.done / 1e6:.0f} of {state.total / 1e6:.0f} MB"
    if state.doing == "recordings" and state.total:
        return f"encoding recording {state.done} of {state.total} again"
    return "a moment" if state.state == "loading" else ""


def _title(offer: ModelOffer) -> str:
    if not offer.bytes:
        return f"{offer.name} · bundled · {offer.licence}"
    where = "" if offer.here else " · downloads"
    advice = " · suggested without a GPU" if offer.suggested else ""
    return f"{offer.name} · {offer.bytes / 1e6:.0f} MB · {offer.licence}{where}{advice}"
