"""The controls of the Prior tracking dock: names, texts and layout. No state."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QFontMetrics
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QLineEdit,
    QProgressBar,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_samexp._qt.controls import Section, button, form, holder, make_bold, named, row, shrinkable
from napari_samexp._qt.hint_line import HintLine, header_row, help_button
from napari_samexp._qt.settings_form import SettingsForm
from napari_samexp._qt.text import PlainLabel, tooltip
from napari_samexp._qt.tracking.recordings_list import RecordingsList
from napari_samexp._qt.tracking.timeline import Timeline
from napari_samexp._qt.tracking.welcome import Welcome
from napari_samexp.session.preferences import Preferences
from napari_samexp.tracking.settings import TrackSettings

__all__ = ["FRAME_CHOICES", "Panel"]

MOST_SCORES = 4  # lines
SCORES_TIP = "The scores of the frame in view."
FRAME_CHOICES = ("all", "from here", "backward from here", "range")
DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("float32", "fast", "bfloat16", "float16", "auto")


class Panel(QWidget):
    """Every control of the dock, as an attribute named like its ``objectName``."""

    def __init__(self) -> None:
        super().__init__()
        self.hint, self.help = HintLine(), help_button()
        self.welcome = Welcome()
        self.welcome.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(2)
        column.addWidget(header_row(self.hint, self.help))
        column.addWidget(self.welcome)
        self.reopen = button("Reopen", "reopen", "Bring back the recordings and labels of your last session.")
        self.reopen.hide()
        column.addWidget(self.reopen)
        for section in (self._model(), self._show_object(), self._prior(), self._track(), self._settings()):
            column.addWidget(section)
        column.addStretch(1)

    def showEvent(self, event: Any) -> None:
        """Reserve room for the longest hint; napari's font is only known now."""
        self.hint.setMinimumHeight(3 * self.hint.fontMetrics().lineSpacing())
        super().showEvent(event)

    def _model(self) -> QWidget:
        self.model = named(
            QComboBox(), "model", "The model. The starter is bundled; others are downloaded once."
        )
        shrinkable(self.model)
        layout = form()
        layout.addRow("model", self.model)
        return holder(layout)

    def _show_object(self) -> Section:
        section = Section(
            "1  Show the object", "section_object", "Click on the object in an image until the mask fits."
        )
        section.rows.addLayout(self._prompt_form())
        self.draw_box = button(
            "Box", "draw_box", "Draw a box around the object, in addition to or instead of clicks."
        )
        self.clear_prompt = button(
            "Clear", "clear_prompt", "Remove all clicks and the box; Ctrl+Z brings the clicks back."
        )
        self.record = button("Record", "record", "Record the object with the mask shown. (R)")
        make_bold(self.record)
        section.rows.addWidget(row(self.draw_box, self.clear_prompt, self.record))
        return section

    def _prompt_form(self) -> QFormLayout:
        self.image = named(
            QComboBox(), "image", "The image to click on: any image layer, or one frame of a video."
        )
        self.role = named(
            QComboBox(),
            "role",
            "What a left click marks. X switches; Alt, Ctrl or the right button mark the opposite.",
        )
        self.role.addItems(["object", "background"])
        self.label = named(
            QSpinBox(), "label", "The object's label. Recordings with the same label show the same object."
        )
        self.label.setRange(1, 65535)
        self.name = named(QLineEdit(), "name", "A name for the object; optional.")
        self.name.setPlaceholderText("name")
        self.mask_choice = named(
            QComboBox(),
            "mask_choice",
            "Which of the model's masks to use, with the IoU that it predicts for each.",
        )
        for combo in (self.image, self.mask_choice):
            shrinkable(combo)
        layout = form()
        layout.addRow("image", self.image)
        layout.addRow("click marks", self.role)
        layout.addRow("label", row(self.label, self.name, stretch=1))
        layout.addRow("mask", self.mask_choice)
        return layout

    def _prior(self) -> Section:
        section = Section(
            "2  What is remembered",
            "section_prior",
            "The recordings: all that tracking knows about the objects.",
        )
        self.recordings = named(
            RecordingsList(),
            "recordings",
            "The recordings. Untick one to leave it out; right-click for more.",
        )
        self.remove = button("Remove", "remove", "Remove the selected recording. (Del)")
        self.undo = button("Undo", "undo", "Undo the last change to the recordings.")
        self.save_prior = button(
            "Save…", "save_prior", "Save the recordings as a prior file, to use on other videos."
        )
        self.load_prior = button("Load…", "load_prior", "Load the recordings of a prior file.")
        section.rows.addWidget(self.recordings)
        section.rows.addWidget(row(self.remove, self.undo, self.save_prior, self.load_prior))
        return section

    def _track(self) -> Section:
        section = Section(
            "3  Find it in a video",
            "section_video",
            "Track the recorded objects through a video that was never prompted.",
        )
        section.rows.addLayout(self._video_form())
        for widgets in (self._run_rows(), self._score_rows(), [self._correction_row()]):
            for widget in widgets:
                section.rows.addWidget(widget)
        return section

    def _video_form(self) -> QFormLayout:
        self.video = named(QComboBox(), "video", "The video to track in.")
        shrinkable(self.video)
        self.open_video = button(
            "Open…", "open_video", "Open a video; frames are decoded when they are shown."
        )
        self.frames = named(QComboBox(), "frames", "Which frames to track, and in which order.")
        self.frames.addItems(list(FRAME_CHOICES))
        self.first = named(QSpinBox(), "first", "The first frame of the range.")
        self.last = named(QSpinBox(), "last", "The last frame of the range.")
        self.range_row = row(self.first, PlainLabel("to"), self.last)
        layout = form()
        layout.addRow("video", row(self.video, self.open_video, stretch=0))
        layout.addRow("frames", self.frames)
        layout.addRow("", self.range_row)
        return layout

    def _run_rows(self) -> list[QWidget]:
        self.track = button("Track", "track", "Find the recorded objects in the chosen frames.")
        make_bold(self.track)
        self.pause = button("Pause", "pause", "Pause after this frame; Resume continues.")
        self.cancel = button(
            "Cancel", "cancel", "Stop. Finished frames stay, and Resume continues from there."
        )
        self.estimate = named(
            PlainLabel(),
            "estimate",
            "How long the chosen frames take, judged by the first three frames tracked with this model here.",
        )
        self.estimate.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.use_side = button(
            "Use 512",
            "use_side",
            "Track again with a smaller model input, into new labels: much faster, but small objects get lost.",
        )
        self.use_side.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.use_side.hide()
        self.progress = named(
            QProgressBar(), "progress", "Frames done, frames per second, and the time left."
        )
        self.progress.setTextVisible(True)
        self.progress.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        return [
            row(self.track, self.pause, self.cancel),
            row(self.estimate, self.use_side, stretch=0),
            self.progress,
        ]

    def _score_rows(self) -> list[QWidget]:
        self.timeline = named(
            Timeline(), "timeline", "Presence and predicted IoU over time; click to go to a frame."
        )
        self.scores_line = named(PlainLabel(" "), "scores_line", SCORES_TIP)
        self.scores_line.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.scores_line.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.previous_lost = button(
            "◀ Lost", "previous_lost", "Go to the previous place where an object was lost. (Shift+N)"
        )
        self.next_lost = button("Lost ▶", "next_lost", "Go to the next place where an object was lost. (N)")
        return [self.timeline, self.scores_line, row(self.previous_lost, self.next_lost)]

    def _correction_row(self) -> QWidget:
        self.remember_frame = button(
            "Remember this frame",
            "remember_frame",
            "Add the label painted on this frame, or the clicks on it, to the memory of this run.",
        )
        self.reset_memory = button(
            "Reset memory",
            "reset_memory",
            "Forget the recent frames; the next frame attends to the recordings alone.",
        )
        return row(self.remember_frame, self.reset_memory)

    def show_scores(self, lines: list[str], objects: int) -> None:
        """Show the scores of the frame in view, one line per object; the tooltip lists what does not fit.

        Room for all objects is reserved, so that nothing moves on frames without scores.
        """
        label, shown, tips = self.scores_line, lines, [SCORES_TIP]
        if len(lines) > MOST_SCORES:
            shown = [*lines[: MOST_SCORES - 1], f"and {len(lines) - MOST_SCORES + 1} more"]
            tips += lines
        label.setText("\n".join(shown))
        label.setToolTip(tooltip("\n".join(tips)))
        rows = min(MOST_SCORES, max(1, objects))
        label.setMinimumHeight(rows * QFontMetrics(label.font()).lineSpacing())

    def _settings(self) -> Section:
        section = Section(
            "Settings",
            "section_settings",
            "All settings; hover over one to see what it does.",
            folded=True,
        )
        self.own_settings = SettingsForm(
            Preferences,
            ("device", "dtype", "graphs", "show_scores", "hover"),
            {"device": DEVICES, "dtype": DTYPES},
        )
        self.track_settings = SettingsForm(TrackSettings)
        section.rows.addWidget(self.own_settings)
        section.rows.addWidget(self.track_settings)
        self.settings_section = section
        return section
