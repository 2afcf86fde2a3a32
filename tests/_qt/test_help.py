"""What explains itself: the hint for somebody new, keys from one table, errors that lead to their entry."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from app_model.types import KeyBinding
from napari.utils.shortcuts import default_shortcuts
from qtpy.QtCore import QUrl
from qtpy.QtGui import QShortcut
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QToolButton

from napari_samexp._qt.help_pages import ENCODINGS_TUTORIAL, TROUBLESHOOTING, TUTORIAL, page, slug
from napari_samexp._qt.help_window import KEYS, HelpWindow
from napari_samexp._qt.hint_line import HintLine
from napari_samexp._qt.shortcuts import ENCODINGS, TRACKING, as_markdown, shown
from napari_samexp._qt.troubles import TROUBLES

SOURCE = Path(__file__).resolve().parents[2] / "src" / "napari_samexp"


def headlines(text: str) -> list[str]:
    return re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )


def codes() -> set[str]:
    """Every code that the source gives an error: by keyword, by class, or as what `code_of` falls back to."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            values: list[ast.expr] = []
            if isinstance(node, ast.Call):
                values += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
                values += node.args[1:] if getattr(node.func, "id", "") == "code_of" else []
            elif isinstance(node, ast.ClassDef):
                values += [
                    line.value
                    for line in node.body
                    if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == "code"
                ]
            texts = [part for value in values for part in ast.walk(value) if isinstance(part, ast.Constant)]
            found |= {text.value for text in texts if isinstance(text.value, str)}
    return found


def test_every_entry_is_in_the_page() -> None:
    there = {slug(line) for line in headlines(page(TROUBLESHOOTING))}
    assert set(map(slug, TROUBLES.values())) <= there


def test_every_code_of_the_table_is_one_that_errors_have() -> None:
    assert set(TROUBLES) <= codes()


def test_errors_lead_to_their_entry(tmp_path: Path) -> None:
    from napari_samexp.engine.errors import as_samexp_error, exit_error
    from napari_samexp.errors import PriorMismatch, SamexpError, sam1_has_no_memory
    from napari_samexp.io.guarded import NotOrdinaryError
    from napari_samexp.io.video import open_video
    from napari_samexp.sam.weights.loading import load_model

    assert TROUBLES[as_samexp_error(MemoryError()).code] == "Out of memory"
    assert TROUBLES[as_samexp_error(RuntimeError("a fault")).code] == "A fault of the program"
    assert TROUBLES[exit_error(-9).code] == "Out of memory"
    assert TROUBLES[exit_error(3).code] == "The model's process ended"
    assert TROUBLES[PriorMismatch.code] == "The prior is of another model"
    assert TROUBLES[sam1_has_no_memory("sam_vit_b").code] == "SAM 1 cannot track"
    assert TROUBLES[NotOrdinaryError.code] == "A link among the files"
    with pytest.raises(SamexpError) as refused:
        load_model(str(SOURCE / "napari.yaml"))
    assert TROUBLES[refused.value.code] == "A weights file is refused"
    (tmp_path / "clip.mp4").write_text("no video at all")
    with pytest.raises(SamexpError) as unreadable:
        open_video(tmp_path / "clip.mp4")
    assert TROUBLES[unreadable.value.code] == "A video cannot be read"


def test_an_error_keeps_its_code_on_the_way_through_another_process() -> None:
    from napari_samexp.errors import VideoError

    error = pickle.loads(pickle.dumps(VideoError("It is damaged.", code="video-unreadable")))
    assert (str(error), error.code) == ("It is damaged.", "video-unreadable")


def test_an_error_has_a_link_and_a_step_has_none(qtbot: Any) -> None:
    line = HintLine()
    qtbot.addWidget(line)
    asked: list[str] = []
    line.explained.connect(asked.append)
    assert line.show_message("There was not enough memory for <this>; choose another model.", "out-of-memory")
    assert "&lt;this&gt;" in line.text() and 'href="out-of-memory"' in line.text()
    line.linkActivated.emit("out-of-memory")
    assert asked == ["out-of-memory"]
    assert not line.show_message("Saved to <b>.safetensors.")
    assert line.text() == "Saved to <b>.safetensors."
    line.show_hint("Click on <b>it</b>.")
    assert line.text() == "Click on <b>it</b>." and line.textFormat() == line.textFormat().PlainText


def test_the_docks_link_opens_the_entry(dock: Any) -> None:
    dock.notify("clip.mp4 cannot be opened as a video (no reason): it is damaged.", "video-unreadable")
    assert "href" in dock.panel.hint.text()
    dock.panel.hint.linkActivated.emit("a-video-cannot-be-read")
    shown_window = dock.show_help(TROUBLESHOOTING, "a-video-cannot-be-read")
    assert shown_window.isVisible() and shown_window.name == TROUBLESHOOTING
    assert shown_window.browser.textCursor().block().text() == "A video cannot be read"
    assert shown_window.browser.verticalScrollBar().value() > 0


def test_the_help_button_opens_the_tutorial(qtbot: Any, dock: Any) -> None:
    (button,) = dock.findChildren(QToolButton, "help")
    button.click()
    (window,) = dock.findChildren(HelpWindow)
    assert window.isVisible() and window.name == TUTORIAL
    assert "Record it" in window.browser.toPlainText()
    button.click()
    assert dock.findChildren(HelpWindow) == [window]


@pytest.mark.parametrize("name", [TUTORIAL, ENCODINGS_TUTORIAL, TROUBLESHOOTING])
def test_the_links_of_a_page_lead_somewhere(qtbot: Any, name: str) -> None:
    window = HelpWindow(None)
    qtbot.addWidget(window)
    text = page(name)
    assert "![" not in text and "<!--" not in text
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        window.show_page(name)
        window._follow(QUrl(target))
        path, _, anchor = target.partition("#")
        assert window.name == (path or name)
        assert not anchor or slug(window.browser.textCursor().block().text()) == anchor


def test_the_keys_that_are_listed_are_those_that_work(dock: Any, viewer: Any, image: Any, qtbot: Any) -> None:
    viewer.add_image(image, rgb=True)
    qtbot.waitUntil(lambda: dock.prompts.layers is not None)
    napari_own = {str(key) for key in type(viewer).class_keymap}
    bound = {str(key) for key in viewer.keymap} - napari_own
    bound |= {str(key) for key in dock.prompts.layers.points.keymap}
    listed = [shortcut.keys for name, shortcut in TRACKING.items() if not name.endswith("_recording")]
    assert bound == {shown(keys) for keys in listed}
    keys = {found.key().toString() for found in dock.panel.recordings.findChildren(QShortcut)}
    assert keys == {"Del", "Ctrl+Z"}
    assert {shown(TRACKING[name].keys) for name in ("remove_recording", "undo_recording")} == {
        "Delete",
        "Ctrl+Z",
    }


def test_all_keys_are_on_their_page() -> None:
    text = as_markdown()
    for shortcut in (*TRACKING.values(), *ENCODINGS.values()):
        assert f"| **{shown(shortcut.keys)}** | {shortcut.does} |" in text


def test_tooltips_name_the_keys_of_the_table(dock: Any) -> None:
    for control, name in (
        (dock.panel.record, "record"),
        (dock.panel.next_lost, "next_lost"),
        (dock.panel.previous_lost, "previous_lost"),
    ):
        assert control.toolTip().endswith(f"({shown(TRACKING[name].keys)})")


def test_the_first_hint_is_put_away_for_good(qtbot: Any, dock: Any, session: Any, viewer: Any) -> None:
    welcome = dock.panel.welcome
    assert welcome.isVisible()
    welcome.tutorial.click()
    assert dock.show_help().name == TUTORIAL
    welcome.sample.click()
    qtbot.waitUntil(lambda: dock.videos.current is not None)
    assert [layer.name for layer in viewer.layers][:2] == ["sample image", "sample clip"]
    assert dock.images.current is viewer.layers["sample image"] and not dock.prompts.covered_by
    welcome.close_button.click()
    assert not welcome.isVisible()
    assert session.settings.welcomed
    from napari_samexp.session.preferences import load_preferences

    assert load_preferences(session._settings_file)[0].welcomed


def test_somebody_who_was_here_before_sees_no_first_hint(qtbot: Any, viewer: Any, session: Any) -> None:
    from napari_samexp._qt.tracking.prior_tracking import PriorTracking

    session.change_settings(welcomed=True)
    widget = PriorTracking(viewer, session)
    qtbot.addWidget(widget)
    widget.show()
    assert not widget.panel.welcome.isVisible() and widget.panel.help.isVisible()
    widget.end()


def test_the_pages_follow_links_and_keys(qtbot: Any) -> None:
    window = HelpWindow(None)
    qtbot.addWidget(window)
    window.open(KEYS)
    assert "Ctrl+Z" in window.browser.toPlainText()
    window._follow(QUrl(f"{TROUBLESHOOTING}#proxies"))
    assert window.name == TROUBLESHOOTING
    QTest.keyClick(window, "\x1b")
    assert not window.isVisible()


def test_no_layer_of_napari_takes_a_key_of_the_whole_viewer() -> None:
    """A key that a layer's class binds never reaches the viewer: L picks a label while labels are painted."""
    taken = {
        str(key if isinstance(key, KeyBinding) else KeyBinding.from_int(int(key)))
        for keys in default_shortcuts.values()
        for key in keys
    }
    everywhere = {entry.keys.replace("-", "+") for entry in TRACKING.values() if entry.where == "anything"}
    assert everywhere == {"N", "Shift+N"}
    assert "L" in taken and everywhere.isdisjoint(taken)
