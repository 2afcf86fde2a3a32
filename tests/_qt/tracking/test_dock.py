"""The dock, on a viewer without a window and a session without a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QComboBox, QLineEdit, QSpinBox, QWidget

from napari_samexp._qt.shown_video import add_video
from napari_samexp._qt.tracking.hints import Standing, hint_for
from napari_samexp._qt.tracking.run_labels import OF_A_DOCK
from napari_samexp.engine.messages.base import CANCEL
from napari_samexp.engine.messages.prompts import (
    ChangeRecording,
    Preview,
    PriorState,
    Record,
    RemoveRecording,
)
from napari_samexp.engine.messages.tracking import FrameDone, Track, TrackEnded, TrackStarted
from napari_samexp.io.label_edits import EditableLabels
from napari_samexp.io.labels import LabelStore
from napari_samexp.io.video import open_video
from napari_samexp.session import LastRun, Leftover
from napari_samexp.session.jobs import JobState
from napari_samexp.tracking.settings import TrackSettings
from napari_samexp.types import ObjectScore, RunIdentity
from tests._qt.fake_engine import recording

NAMES = [
    *("model", "image", "role", "label", "mask_choice", "record", "recordings", "save_prior", "load_prior"),
    *("open_video", "video", "frames", "track", "pause", "cancel", "remember_frame", "reset_memory"),
    *("progress", "timeline", "estimate", "use_side", "device", "dtype", "graphs", "show_scores", "hover"),
    *TrackSettings.__dataclass_fields__,
]


def click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    qtbot.wait(30)  # for the answer


@pytest.fixture
def prompted(qtbot, dock, viewer, image):
    """The dock with one click on an image."""
    viewer.add_image(image, rgb=True, name="image")
    qtbot.waitUntil(lambda: dock.prompts.layers is not None)
    dock.prompts.layers.add_point(10, 20, (), "object")
    qtbot.waitUntil(lambda: dock.session.prompting.preview is not None)
    return dock


def test_every_control_is_found_by_its_name(dock):
    for name in NAMES:
        assert len(dock.findChildren(QWidget, name)) == 1, name


def test_every_control_has_a_tooltip(dock):
    dock.panel.settings_section.head.setChecked(True)
    for kind in (QAbstractButton, QComboBox, QLineEdit, QSpinBox):
        for control in dock.panel.findChildren(kind):
            owner = control.parentWidget()
            inner = isinstance(owner, QSpinBox | QComboBox) or control.objectName().startswith("qt_")
            assert control.toolTip() or inner, control.objectName()


def test_a_click_becomes_a_preview(prompted, engines):
    asked = engines[0].last(Preview)
    np.testing.assert_array_equal(asked.prompt.points_xy, [[10, 20]])
    assert prompted.panel.mask_choice.count() == 3
    assert "best" in prompted.panel.mask_choice.currentText()
    assert prompted.prompts.preview.layer.data.sum() == 20 * 64


def test_the_points_stay_the_active_layer(prompted, viewer):
    assert viewer.layers.selection.active is prompted.prompts.layers.points
    assert viewer.layers[-1] is prompted.prompts.layers.points


def test_picking_the_image_lets_the_next_click_count(prompted, viewer):
    points = prompted.prompts.layers.points
    viewer.layers.selection.active, points.mode = viewer.layers["image"], "pan_zoom"
    prompted.panel.image.activated.emit(prompted.panel.image.currentIndex())
    assert viewer.layers.selection.active is points and points.mode == "add"


def test_the_first_click_on_another_image_stays(qtbot, prompted, viewer, image):
    click(qtbot, prompted.panel.record)
    viewer.add_image(image[::-1], rgb=True, name="next")
    qtbot.waitUntil(lambda: prompted.prompts.layers.image.name == "next")
    prompted.panel.name.setText("cat")
    prompted.prompts.layers.add_point(10, 20, (), "object")
    qtbot.waitUntil(lambda: prompted.session.prompting.preview is not None)
    assert len(prompted.prompts.layers.points.data) == 1 and prompted.panel.name.text() == "cat"
    prompted.prompts.layers.add_point(12, 20, (), "object")
    assert prompted.session.prompting.prompt.points_xy.tolist() == [[10, 20], [12, 20]]


def test_the_next_image_is_the_one_to_click_on_unless_there_are_clicks(qtbot, prompted, viewer, image):
    viewer.add_image(image, rgb=True, name="second")
    qtbot.waitUntil(lambda: prompted.panel.image.findText("second") >= 0)
    assert prompted.images.current.name == "image"
    prompted.panel.clear_prompt.click()
    viewer.add_image(image, rgb=True, name="third")
    qtbot.waitUntil(lambda: prompted.images.current.name == "third")
    assert viewer.layers.selection.active is prompted.prompts.layers.points
    viewer.add_image(np.zeros((4, *image.shape), np.uint8), rgb=True, name="video")
    qtbot.waitUntil(lambda: prompted.panel.image.findText("video") >= 0)
    assert prompted.images.current.name == "third"


def test_a_selected_layer_that_takes_the_clicks_is_told(qtbot, prompted, viewer):
    points, says = prompted.prompts.layers.points, prompted.panel.hint.text

    def told(active):
        viewer.layers.selection.active = active
        qtbot.wait(20)
        return "select the layer “image prompt”" in says()

    assert told(viewer.layers["image"]) and says().startswith("Press Record (R); to click again")
    assert not told(points) and "click again to correct" in says()
    prompted.panel.draw_box.click()
    assert not told(prompted.prompts.layers.box)
    prompted.panel.clear_prompt.click()
    assert told(viewer.layers["image"]) and says().startswith("Clicks go to another layer:")
    assert not told(points) and says() == "Click on your object in the image."


def test_who_paints_is_not_told_about_clicks(qtbot, prompted, viewer):
    painted = viewer.add_labels(np.zeros((48, 64), np.uint8), metadata={OF_A_DOCK: True})
    viewer.layers.selection.active = painted
    qtbot.wait(20)
    assert "select the layer" not in prompted.panel.hint.text()


@pytest.mark.parametrize("job", ["starting", "tracking", "paused", "finished"])
@pytest.mark.parametrize("lost", [0, 2])
def test_a_run_is_told_whatever_layer_is_selected(job, lost):
    now = Standing("ready", images=True, recordings=1, video=True, job=job, lost=lost)
    assert hint_for(now) == hint_for(replace(now, to_select="cat prompt"))


def test_a_covered_image_is_not_the_one_to_go_back_to():
    now = Standing("ready", images=True, recordings=1, video=True, to_select="cat prompt", covered="fox.mp4")
    assert hint_for(now) == (
        "Press Track to find it in the video; to click again, choose “fox.mp4” as the image first."
    )
    assert "select the layer “cat prompt”" in hint_for(replace(now, covered=""))


def test_enter_gives_the_keys_back_to_the_image(qtbot, prompted):
    prompted.activateWindow()
    for field in (prompted.panel.name, prompted.panel.label.lineEdit()):
        field.setFocus()
        qtbot.waitUntil(field.hasFocus)
        qtbot.keyClick(field, Qt.Key.Key_Return)
        assert not field.hasFocus() and not prompted.panel.label.hasFocus()


def test_another_mask_can_be_chosen(prompted):
    prompted.panel.mask_choice.setCurrentIndex(2)
    prompted.panel.mask_choice.activated.emit(2)
    assert prompted.prompts.preview.layer.data.sum() == 30 * 64


def test_record_keeps_the_label_and_clears_the_points(qtbot, prompted, engines):
    prompted.panel.label.setValue(3)
    qtbot.keyClicks(prompted.panel.name, "cat")
    click(qtbot, prompted.panel.record)
    asked = engines[0].last(Record)
    assert (asked.label, asked.name) == (3, "cat")
    assert len(prompted.prompts.layers.points.data) == 0
    assert prompted.panel.recordings.item(0).text().startswith("cat · label 3")
    assert not prompted.panel.record.isEnabled()


def test_the_preview_layer_stays_for_the_next_prompt(qtbot, prompted, viewer):
    layer = prompted.prompts.preview.layer
    prompted.panel.clear_prompt.click()
    qtbot.waitUntil(lambda: not layer.visible)
    assert layer in viewer.layers and not layer.data.any()
    prompted.prompts.layers.add_point(12, 20, (), "object")
    qtbot.waitUntil(lambda: layer.visible)
    assert prompted.prompts.preview.layer is layer and layer.data.any()


def test_no_preview_layer_is_left_when_its_image_goes(qtbot, prompted, viewer, image):
    prompted.panel.clear_prompt.click()
    qtbot.waitUntil(lambda: prompted.session.prompting.preview is None)
    viewer.layers.remove("image")
    qtbot.waitUntil(lambda: not list(viewer.layers))


def test_a_preview_lies_over_the_image_that_was_clicked(qtbot, prompted, viewer, image):
    viewer.add_image(image, rgb=True, name="other", scale=(3, 3))
    qtbot.waitUntil(lambda: prompted.panel.image.findText("other") >= 0)
    prompted.images.choose(viewer.layers["other"])
    prompted.prompts.layers.add_point(10, 20, (), "object")
    qtbot.waitUntil(lambda: prompted.session.prompting.preview is not None)
    qtbot.waitUntil(lambda: prompted.prompts.preview.layer is not None)
    np.testing.assert_array_equal(prompted.prompts.preview.layer.scale, (3, 3))


def test_x_switches_the_role(prompted):
    prompted.prompts.layers.role_toggled.emit()
    assert prompted.panel.role.currentText() == "background"
    prompted.prompts.layers.role_toggled.emit()
    assert prompted.panel.role.currentText() == "object"


def test_recordings_are_switched_renamed_and_removed(qtbot, dock, session, engines):
    session.recordings.show(PriorState(recordings=(recording("a"), recording("b", 2, "dog")), undoable=True))
    shown = dock.panel.recordings
    shown.item(0).setCheckState(Qt.CheckState.Unchecked)
    assert engines[0].last(ChangeRecording) == ChangeRecording("a", enabled=False)
    shown.item(1).setText("puppy")
    assert engines[0].last(ChangeRecording) == ChangeRecording("b", name="puppy")
    shown.setCurrentRow(1)
    click(qtbot, dock.panel.remove)
    assert engines[0].last(RemoveRecording) == RemoveRecording("b")


def test_track_asks_for_the_chosen_frames(
    qtbot, dock, viewer, video, session, engines, tmp_path, monkeypatch
):
    monkeypatch.setattr("napari_samexp._qt.tracking.run_control.store_folder", lambda path: tmp_path)
    session.recordings.show(PriorState(recordings=(recording("a"),)))
    add_video(viewer, video)
    qtbot.waitUntil(lambda: dock.videos.current is not None)
    viewer.dims.set_current_step(0, 4)
    dock.panel.frames.setCurrentText("from here")
    click(qtbot, dock.panel.track)
    asked = engines[0].last(Track)
    assert list(asked.frames) == [4, 5, 6, 7, 8]
    assert asked.store.startswith(str(tmp_path))
    assert not dock.panel.track.isEnabled()
    assert dock.panel.pause.isEnabled() and dock.panel.cancel.isEnabled()


def test_track_waits_for_recordings_and_a_video(dock):
    assert not dock.panel.track.isEnabled()
    assert not dock.panel.save_prior.isEnabled()


def test_settings_are_kept(dock, session):
    dock.panel.track_settings.controls["recent"].setValue(3)
    assert session.settings.track.recent == 3


def test_a_side_is_chosen_or_typed(qtbot, dock, session):
    side = dock.panel.track_settings.controls["side"]
    assert [side.itemText(place) for place in range(side.count())] == ["the model's own", "768", "512"]
    assert side.currentText() == "the model's own"
    side.setCurrentIndex(2)
    side.activated.emit(2)
    assert session.settings.track.side == 512
    for typed, kept in (("128", 128), ("many", 128), ("7", 128), ("", None)):
        side.lineEdit().setText(typed)
        qtbot.keyClick(side.lineEdit(), Qt.Key.Key_Return)
        assert session.settings.track.side == kept
        assert side.currentText() == ("the model's own" if kept is None else str(kept))


@pytest.fixture
def tracking_slowly(qtbot, dock, viewer, video, session, engines, tmp_path, monkeypatch):
    """The dock while the bundled worker's stand-in tracks nine frames, of which it has finished as many as asked."""
    monkeypatch.setattr("napari_samexp._qt.tracking.run_control.store_folder", lambda path: tmp_path)
    session.recordings.show(PriorState(recordings=(recording("a"),)))
    add_video(viewer, video)
    qtbot.waitUntil(dock.panel.track.isEnabled)
    click(qtbot, dock.panel.track)
    qtbot.waitUntil(lambda: engines[0].last(Track) is not None)
    asked = engines[0].last(Track)
    number = engines[0].asked.index(asked) + 1
    shape = video.shape[:3]
    LabelStore.create(
        asked.store, shape=shape, labels={1: "cat"}, identity=RunIdentity("v", "p", "m", "s")
    ).close()
    engines[0].say(TrackStarted(number, asked.store, shape, {1: "cat"}, 0, len(video)))

    def track(frames, seconds):
        for index in frames:
            engines[0].say(FrameDone(number, index, {1: ObjectScore(3.0, 0.9)}, seconds))
        qtbot.wait(30)
        return number

    return track


def test_a_frame_beyond_the_labels_of_another_video_is_a_sentence(
    dock, tracking_slowly, viewer, qtbot, engines
):
    number = tracking_slowly(range(9), 0.01)
    engines[0].say(TrackEnded(number, "finished"))
    longer = add_video(viewer, open_video(np.zeros((20, 48, 64, 3), np.uint8)))
    qtbot.waitUntil(lambda: longer in dock.videos._layers)
    dock.videos.choose(longer)
    viewer.dims.set_current_step(0, 15)
    dock.corrections.remember_frame()
    assert "15" in dock.panel.hint.text()


def test_a_run_that_is_soon_over_is_estimated_and_nothing_proposed(dock, tracking_slowly):
    tracking_slowly(range(2), 0.5)
    assert dock.panel.estimate.text() == "time: known after three frames"
    tracking_slowly([2], 0.5)
    assert dock.panel.estimate.text() == "about 6 s for 9 frames at 1024"
    assert dock.panel.use_side.isHidden()
    assert dock.session.tracking.job.left_s > 1.3 * 6 * 0.5  # the six that are left look at more memories


def test_a_smaller_side_is_proposed_and_taken(qtbot, dock, session, engines, tracking_slowly):
    number = tracking_slowly(range(3), 200.0)
    assert dock.panel.estimate.text() == "about 35 min at 1024"  # short enough to stand beside the button
    assert dock.panel.use_side.text() == "Use 512: 6 min"  # 5.5 by the count of products
    first = engines[0].last(Track)
    click(qtbot, dock.panel.use_side)
    assert engines[0].asked[-1] == CANCEL
    assert engines[0].last(Track) is first  # not before the run has ended
    engines[0].say(TrackEnded(number, "cancelled"))
    qtbot.waitUntil(lambda: engines[0].last(Track) is not first)
    again = engines[0].last(Track)
    assert session.settings.track.side == again.settings.side == 512
    assert again.store != first.store and list(again.frames) == list(first.frames)
    assert dock.panel.track_settings.controls["side"].currentText() == "512"


def test_the_next_run_is_estimated_before_it_begins(qtbot, dock, session, tracking_slowly, engines):
    number = tracking_slowly(range(9), 10.0)
    engines[0].say(TrackEnded(number, "finished"))
    qtbot.waitUntil(lambda: not session.tracking.job.active)
    assert dock.panel.estimate.text() == "about 2 min for 9 frames at 1024"
    side = dock.panel.track_settings.controls["side"]
    side.setCurrentIndex(2)
    side.activated.emit(2)
    assert dock.panel.estimate.text() == "about 15 s for 9 frames at 512"
    dock.panel.frames.setCurrentText("range")
    dock.panel.frames.activated.emit(3)
    dock.panel.last.setValue(0)
    assert dock.panel.estimate.text() == "about 2 s for 1 frame at 512"


def test_the_hint_leads_from_step_to_step(qtbot, dock, viewer, image):
    assert "Open an image" in dock.panel.hint.text()
    viewer.add_image(image, rgb=True)
    qtbot.waitUntil(lambda: "Click on your object" in dock.panel.hint.text())
    dock.prompts.layers.add_point(10, 20, (), "object")
    qtbot.waitUntil(lambda: dock.session.prompting.preview is not None)
    assert "Record" in dock.panel.hint.text()
    click(qtbot, dock.panel.record)
    assert "open the video" in dock.panel.hint.text()


def test_a_covered_image_is_told(qtbot, prompted, viewer, image):
    viewer.add_image(image, rgb=True, name="cover", translate=(0, 200))
    assert prompted.prompts.covered_by == ""
    viewer.layers["cover"].translate = (0, 10)
    viewer.layers.move(viewer.layers.index("cover"), 1)
    prompted.prompts.sync()
    assert "cover covers the image" in prompted.panel.hint.text()
    viewer.layers["cover"].visible = False
    prompted.prompts.sync()
    assert "Record" in prompted.panel.hint.text()


def test_what_was_left_is_offered_until_there_is_something_new(dock, session):
    session.left_found.emit(Leftover(LastRun("a.zarr", "clips/fox.mp4"), None))
    assert dock.panel.reopen.text() == "Reopen fox.mp4" and not dock.panel.reopen.isHidden()
    assert "Reopen your last session" in dock.panel.hint.text()
    session.recordings.show(PriorState(recordings=(recording("a"),)))
    assert dock.panel.reopen.isHidden()
    session.left_found.emit(Leftover(None, None))
    assert dock.panel.reopen.isHidden()


@pytest.mark.parametrize("of_a_dock", [True, False])
def test_labels_that_are_opened_are_taken_up_but_not_those_of_another_docks_run(
    dock, viewer, video, session, tmp_path, monkeypatch, of_a_dock
):
    opened = []
    monkeypatch.setattr(session, "open_run", opened.append)
    path = tmp_path / "run.zarr"
    LabelStore.create(
        path, shape=video.shape[:3], labels={1: "cat"}, identity=RunIdentity("v", "p", "m", "s")
    ).close()
    viewer.add_labels(EditableLabels(path), metadata={OF_A_DOCK: True} if of_a_dock else {})
    assert opened == ([] if of_a_dock else [path])


@pytest.mark.parametrize(
    "job", ["starting", "tracking", "paused", "cancelled", "failed", "interrupted", "finished"]
)
def test_every_state_of_a_run_has_words(job):
    assert hint_for(Standing("ready", job=job, lost=2))


def test_errors_are_one_sentence(qtbot, dock, viewer, image):
    viewer.add_image(image, rgb=True)
    qtbot.waitUntil(lambda: dock.prompts.layers is not None)
    dock.prompts.layers.add_point(-100, 20, (), "object")
    assert "outside the image" in dock.panel.hint.text()


def test_ending_leaves_nothing_behind(qtbot, prompted, viewer, engines):
    dims, layers = viewer.dims.events.point, viewer.layers.events
    assert len(dims.callbacks) > 1
    prompted.end()
    qtbot.waitUntil(lambda: engines[0].closed)
    assert not [layer for layer in viewer.layers if layer.name != "image"]
    assert len(prompted.connections) == 0
    ours = [str(call) for event in (dims, layers.inserted, layers.removed) for call in event.callbacks]
    assert not [call for call in ours if "LayerChoice" in call or "Control" in call]
    assert not viewer.mouse_move_callbacks


def test_removing_the_image_takes_its_prompt_along(qtbot, prompted, viewer):
    viewer.layers.remove("image")
    qtbot.waitUntil(lambda: prompted.prompts.layers is None)
    assert not list(viewer.layers)


def test_a_finished_run_can_be_neither_paused_nor_cancelled(dock, session):
    for state, can in (("tracking", True), ("paused", True), ("finished", False)):
        session.tracking.job = JobState(state, "store", 5, 5)
        session.tracking.job_changed.emit(session.tracking.job)
        assert dock.panel.pause.isEnabled() is can
        assert dock.panel.cancel.isEnabled() is can
    assert dock.panel.pause.text() == "Pause"
