"""Choosing and loading the model."""

from __future__ import annotations

from napari_samexp._qt.dock import Dock
from napari_samexp._qt.model_choice import ModelChoice
from napari_samexp._qt.text import tooltip
from napari_samexp.session.models import ModelState
from napari_samexp.session.session import Session

__all__ = ["ModelControl", "loading_progress"]


class ModelControl:
    """Loads the model that is picked, and shows which one is loaded."""

    def __init__(self, dock: Dock) -> None:
        self._dock, self._combo = dock, dock.panel.model
        self._session: Session = dock.session
        self._choice = ModelChoice(self._combo, dock.connections, self._load)
        dock.connections.add(self._session.models.changed, self._show)

    def begin(self) -> None:
        """Load the model that was used last, unless that would download something unasked."""
        name = self._session.settings.model
        if self._choice.is_here(name):
            self._choice.select(name)
            self._load(name)
        else:
            self._choice.select("")

    def _load(self, name: str) -> None:
        with self._dock.errors_shown():
            self._session.load_model(name)

    def _show(self, state: ModelState) -> None:
        if state.name:
            self._choice.select(state.name)
        if state.info is not None:
            info = state.info
            self._combo.setToolTip(
                tooltip(
                    f"{info.name} on {info.device} ({info.dtype}), {info.parameters / 1e6:.1f} million parameters.\n"
                    "Choose another to load it; official ones are downloaded once."
                )
            )


def loading_progress(state: ModelState) -> str:
    """Return how far loading is, such as "downloaded 12 of 156 MB"."""
    if state.doing == "bytes" and state.total:
        return f"downloaded {state.done / 1e6:.0f} of {state.total / 1e6:.0f} MB"
    if state.doing == "recordings" and state.total:
        return f"encoding recording {state.done} of {state.total} again"
    return "a moment" if state.state == "loading" else ""
