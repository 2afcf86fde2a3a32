"""Names from files are shown letter by letter: no widget, tooltip or layer takes them for HTML."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt, QUrl
from qtpy.QtGui import QHelpEvent, QTextDocument
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QAbstractItemView, QLabel, QToolTip, QWidget

from napari_samexp._qt import readers
from napari_samexp._qt.help_window import HelpWindow
from napari_samexp._qt.measure.comparison import ComparisonDock
from napari_samexp._qt.measure.measuring import MeasuringDock
from napari_samexp._qt.text import PlainLabel, button_text, for_napari, readable, tooltip
from napari_samexp.engine.messages.prompts import PriorState
from napari_samexp.errors import StoreError
from napari_samexp.io.labels import LabelStore
from napari_samexp.measure.comparison import Cell, Comparison
from napari_samexp.session import LastRun, Leftover
from napari_samexp.types import FrameResult, ObjectScore, RunIdentity
from tests._qt.fake_engine import recording

QT = Path(__file__).resolve().parents[2] / "src" / "napari_samexp" / "_qt"
MARK = "evil"  # in every name here, so that it is found wherever it is shown
HOSTILE = [
    f'<img src="file:///dev/zero">{MARK}',
    f"{'<table><tr><td>' * 18}{MARK}",
    f"<b>{MARK}</b>",
    f"<!DOCTYPE html><img src=x>{MARK}",
    f"&lt;img src=x&gt;{MARK}",
    f"first {MARK}\n<img src=x>\nthird",
    f"{MARK}\u202egpj.exe\x1b[2J\x07",
    f"{MARK}{'x' * 10_000}",
    f"A & B {MARK}",
]


def is_taken_for_html(text: str) -> bool:
    """Whether Qt would guess so, by what a label that may guess makes of it."""
    from napari._qt.utils import qt_might_be_rich_text

    return bool(qt_might_be_rich_text(text))


def tooltips(widget: QWidget) -> Iterator[str]:
    for each in (widget, *widget.findChildren(QWidget)):
        yield each.toolTip()
        model = each.model() if isinstance(each, QAbstractItemView) else None
        if model is not None:
            for row in range(model.rowCount()):
                for column in range(getattr(each, "columnCount", lambda: 1)()):
                    yield str(model.index(row, column).data(Qt.ItemDataRole.ToolTipRole) or "")


def assert_letter_by_letter(*windows: QWidget) -> set[str]:
    """Look at every label and tooltip; return where names from outside were found."""
    found = set()
    for window in windows:
        for label in (each for each in (window, *window.findChildren(QLabel)) if isinstance(each, QLabel)):
            if MARK in label.text():
                found.add(label.objectName())
                plain = label.textFormat() == Qt.TextFormat.PlainText
                assert plain or escaped(label.text()), label.objectName()
                assert len(label.text()) < 5000 and not set("\x1b\x07\u202e") & set(label.text())
        for text in tooltips(window):
            if MARK in text:
                found.add("tooltip")
                assert not is_taken_for_html(text) or escaped(text), text[:200]
                assert len(text) < 10_000
    return found


def escaped(text: str) -> bool:
    """Whether only tags of ours are in it: no name has a link, nor these without anything else."""
    return set(re.findall(r"<[^>]*>?", re.sub(r'<a href="[a-z-]+" style="color: #\w+">', "", text))) <= {
        "<qt>",
        "</qt>",
        "<br>",
        "</a>",
    }


def features_of(layer: Any) -> list[str]:
    return [str(value) for value in np.ravel(layer.features.to_numpy())] if hasattr(layer, "features") else []


def assert_layers_can_be_shown(viewer: Any) -> None:
    for layer in viewer.layers:
        for text in (layer.name, layer.get_source_str(), *features_of(layer)):
            assert not is_taken_for_html(text) and len(text) < 1000, text[:200]


def make_store(path: Path, names: list[str]) -> str:
    labels = dict(enumerate(names, start=1))
    identity = RunIdentity("v", str(path), "m", "s")
    with LabelStore.create(path, shape=(3, 20, 30), labels=labels, identity=identity) as store:
        for index in range(3):
            frame = np.arange(600, dtype=np.uint16).reshape(20, 30) % (len(names) + 1)
            store.write(FrameResult(index, frame, {n: ObjectScore(1.0, 0.5) for n in labels}))
    return str(path)


# ---- the helper


@pytest.mark.parametrize("name", HOSTILE)
def test_a_tooltip_says_what_the_name_says(name: str) -> None:
    text = tooltip(name)
    assert escaped(text) or not is_taken_for_html(text)
    page = QTextDocument()
    if is_taken_for_html(text):
        page.setHtml(text)
        assert page.toPlainText().replace("\xa0", " ") == readable(name)
    else:
        assert text == readable(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_napari_cannot_take_a_name_for_html(name: str) -> None:
    assert not is_taken_for_html(for_napari(name)) and "<" not in for_napari(name)
    assert MARK in for_napari(name)


def test_a_label_is_plain_whatever_it_is_given(qtbot: Any) -> None:
    label = PlainLabel("<b>a</b>")
    qtbot.addWidget(label)
    assert label.textFormat() == Qt.TextFormat.PlainText and label.text() == "<b>a</b>"
    label.set_own_html("<b>a</b>")
    label.setText("<i>b")
    assert label.textFormat() == Qt.TextFormat.PlainText and label.text() == "<i>b"


def test_a_text_of_any_size_fits_on_a_screen() -> None:
    assert readable("a\n" * 10**6).count("\n") < 300 and len(readable("a" * 10**7)) < 5000
    assert readable("a\nb") == "a\nb" and readable("x" * 3000) == "x" * 3000
    assert button_text("a & b") == "a && b"


# ---- every window


@pytest.mark.parametrize("name", HOSTILE)
def test_the_dock_of_prior_tracking(
    dock: Any, viewer: Any, session: Any, engines: Any, qtbot: Any, tmp_path: Path, name: str
) -> None:
    infos = [recording(f"r{n}", n, name, image_name=name, model=name, usable=n == 1) for n in (1, 2)]
    session.recordings.show(PriorState(recordings=tuple(infos)))
    labels = [name, *(f"{MARK} {n}" for n in range(5))]
    viewer.add_image(np.zeros((3, 20, 30)), name=for_napari(name))
    session.open_run(make_store(tmp_path / "s.zarr", labels))
    qtbot.waitUntil(lambda: session.results.labels is not None and dock.run.labels.shown)
    qtbot.waitUntil(lambda: MARK in dock.panel.scores_line.text())
    qtbot.waitUntil(lambda: "name" in dock.run.labels.layer.features, timeout=10_000)
    dock.session.left_found.emit(Leftover(LastRun(str(tmp_path), name), None))
    dock.panel.reopen.setText(button_text(name))
    dock.notify(name)
    assert {"hint", "scores_line", "tooltip"} <= assert_letter_by_letter(dock)
    dock.notify(f"The label store {name} is damaged", "labels-of-another-run")  # with a link to help
    assert dock.panel.hint.textFormat() == Qt.TextFormat.RichText
    assert "hint" in assert_letter_by_letter(dock)
    assert_layers_can_be_shown(viewer)
    assert len(dock.panel.reopen.text()) < 5000


def test_the_tooltip_of_the_timeline(dock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(QToolTip, "showText", lambda _place, text, *_: told.append(text))
    line = dock.panel.timeline
    line.reset(5, dict(enumerate(HOSTILE, start=1)), {})
    line.event(QHelpEvent(QHelpEvent.Type.ToolTip, QPoint(5, 5), QPoint(5, 5)))
    assert MARK in told[0] and (escaped(told[0]) or not is_taken_for_html(told[0]))


@pytest.mark.parametrize("name", HOSTILE)
def test_the_dock_of_comparison(qtbot: Any, viewer: Any, tmp_path: Path, name: str) -> None:
    from napari_samexp.render.mp4 import write_mp4

    write_mp4(tmp_path / "v.mp4", [np.full((20, 30, 3), 50 * t, np.uint8) for t in range(3)], 5)
    make_store(tmp_path / "s.zarr", [name])
    cell = Cell(name, name, str(tmp_path / "v.mp4"), str(tmp_path / "s.zarr"), presence=1.0, frames=3)
    cells = (cell, replace(cell, error=name))
    Comparison((name, name), (name,), cells, {}).save(tmp_path / "comparison.json")
    dock = ComparisonDock(viewer)
    qtbot.addWidget(dock)
    dock.load(str(tmp_path / "comparison.json"))
    assert "tooltip" in assert_letter_by_letter(dock)
    dock.open_cell(1, 0)
    assert "comparison_status" in assert_letter_by_letter(dock)
    dock.open_cell(0, 0)
    qtbot.waitUntil(lambda: len(viewer.layers) == 2)
    assert "comparison_status" in assert_letter_by_letter(dock)
    assert_layers_can_be_shown(viewer)
    assert all(MARK in layer.name for layer in viewer.layers)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_dock_of_measuring(qtbot: Any, viewer: Any, tmp_path: Path, name: str) -> None:
    for number in (1, 2):
        settings = readers._read_labels(make_store(tmp_path / f"{number}.zarr", [name]))[0]
        viewer.add_labels(settings[0], **settings[1])
    dock = MeasuringDock(viewer)
    qtbot.addWidget(dock)
    dock.labels.setCurrentIndex(0)
    dock.ground_truth.setCurrentIndex(1)
    dock.start_evaluation()
    qtbot.waitUntil(lambda: dock.evaluation is not None)
    assert "measure_status" in assert_letter_by_letter(dock)
    dock.tracks.click()
    qtbot.waitUntil(lambda: len(viewer.layers) == 3)
    assert_layers_can_be_shown(viewer)
    assert MARK in str(viewer.layers[0].features["name"].to_list())


def test_a_long_name_does_not_widen_a_dock(qtbot: Any, viewer: Any) -> None:
    viewer.add_labels(np.zeros((4, 4), np.uint8), name="x" * 10_000)
    dock = MeasuringDock(viewer)
    qtbot.addWidget(dock)
    dock.status.setText("x" * 300)
    assert dock.minimumSizeHint().width() < 3000
    assert dock.labels.minimumSizeHint().width() < 400


def test_errors_that_napari_shows_have_no_tags(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", ["a"])
    metadata = json.loads((tmp_path / "s.zarr" / "zarr.json").read_text())
    metadata["attributes"]["napari_samexp"]["version"] = HOSTILE[0]
    (tmp_path / "s.zarr" / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match=MARK) as raised:
        readers._read_labels(str(tmp_path / "s.zarr"))
    assert "<" not in str(raised.value)


def test_help_opens_nothing_but_its_pages(qtbot: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    window = HelpWindow(QWidget())
    qtbot.addWidget(window)
    for address in (
        QUrl.fromLocalFile(str(tmp_path / "a.png")),
        QUrl("http://127.0.0.1:9/a.png"),
        QUrl("a.png"),
    ):
        kind = int(QTextDocument.ResourceType.ImageResource.value)
        assert window.browser.loadResource(kind, address) is None


# ---- no way around the helper


def test_every_label_and_tooltip_goes_through_the_helper() -> None:
    found = [
        f"{path.name}:{node.lineno}"
        for path in sorted(QT.rglob("*.py"))
        if path.name != "text.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and is_a_way_around(node)
        if (path.name, name_of(node))
        not in {("hint_line.py", "set_own_html"), ("welcome.py", "set_own_html")}
    ]
    assert not found


def name_of(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def is_a_way_around(call: ast.Call) -> bool:
    tip = {"setToolTip": 0, "showText": 1, "setItemData": 1}.get(name_of(call))
    if tip is not None:
        if name_of(call) == "setItemData" and "ToolTip" not in ast.unparse(call):
            return False
        text = call.args[tip]
        return not isinstance(text, ast.Constant) and not (
            isinstance(text, ast.Call) and name_of(text) == "tooltip"
        )
    if ast.unparse(call.func).startswith("QMessageBox"):
        return True
    return name_of(call) in {
        *("QLabel", "setHtml", "set_own_html", "setStatusTip", "setWhatsThis"),
        *("show_info", "show_warning", "show_error"),
    }


def test_the_rule_finds_a_way_around() -> None:
    for code in (
        "QLabel(x)",
        "w.setToolTip(x)",
        "QToolTip.showText(a, f'{x}', b)",
        "QMessageBox(w)",
    ):
        (statement,) = ast.parse(code).body
        assert is_a_way_around(statement.value), code  # type: ignore[attr-defined]


def test_buttons_do_not_underline_letters_of_names(dock: Any) -> None:
    dock.session.left_found.emit(Leftover(LastRun("x", "/videos/A & B.mp4"), None))
    button = dock.panel.findChild(QAbstractButton, "reopen")
    assert button.text() == "Reopen A && B.mp4"
    QTest.qWait(1)
