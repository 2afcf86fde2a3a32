"""What explains itself: the hint for somebody new, keys from one table, errors that lead to their entry."""

from __future__ import annotations

import ast
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
from napari_samexp._qt.troubles import TROUBLES, trouble_of

SOURCE = Path(__file__).resolve().parents[2] / "src" / "napari_samexp"


def headlines(text: str) -> list[str]:
    return re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )


def sentences() -> list[str]:
    """Every text in the source but docstrings and the table itself, with a dot for each value in it."""
    found = []
    for path in SOURCE.rglob("*.py"):
        if path.name == "troubles.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
        }
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "." for part in node.values]
                found.append("".join(map(str, parts)))
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and not {id(node)} & (inside | docs)
            ):
                found.append(node.value)
    return found


def test_every_entry_is_in_the_page() -> None:
    there = {slug(line) for line in headlines(page(TROUBLESHOOTING))}
    assert {trouble.anchor for trouble in TROUBLES} <= there


def test_every_sentence_of_the_table_can_be_said() -> None:
    said = sentences()
    for trouble in TROUBLES:
        for words in trouble.says:
            assert any(words in sentence for sentence in said), f"nothing says {words!r} any more"


def test_sentences_lead_to_their_entry() -> None:
    from napari_samexp.engine.errors import exit_sentence, sentence_of
    from napari_samexp.errors import SamexpError
    from napari_samexp.sam.weights.loading import load_model

    assert trouble_of(sentence_of(MemoryError())).title == "Out of memory"
    assert trouble_of(sentence_of(RuntimeError("a fault"))).title == "A fault of the program"
    assert trouble_of(exit_sentence(-9)).title == "Out of memory"
    assert trouble_of(exit_sentence(3)).title == "The model's process ended"
    assert trouble_of("Click on your object in the image.") is None
    assert trouble_of("Saved to cat.safetensors.") is None
    with pytest.raises(SamexpError) as refused:
        load_model(str(SOURCE / "napari.yaml"))
    assert trouble_of(str(refused.value)).title == "A weights file is refused"


def test_an_error_has_a_link_and_a_step_has_none(qtbot: Any) -> None:
    line = HintLine()
    qtbot.addWidget(line)
    asked: list[str] = []
    line.explained.connect(asked.append)
    assert line.say("There was not enough memory for <this>; choose another model.")
    assert "&lt;this&gt;" in line.text() and 'href="out-of-memory"' in line.text()
    line.linkActivated.emit("out-of-memory")
    assert asked == ["out-of-memory"]
    assert not line.say("Saved to <b>.safetensors.")
    assert line.text() == "Saved to <b>.safetensors."
    line.tell("Click on <b>it</b>.")
    assert line.text() == "Click on <b>it</b>." and line.textFormat() == line.textFormat().PlainText


def test_the_docks_link_opens_the_entry(dock: Any) -> None:
    dock.say("clip.mp4 cannot be opened as a video (no reason): it is damaged.")
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
