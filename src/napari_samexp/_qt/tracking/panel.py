"""The controls of prior tracking: what they are called, what they say and where they lie. No state."""

from __future__ import annotations

from typing import Any, TypeVar

from qtpy.QtCore import Qt
from qtpy.QtGui import QFontMetrics
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_samexp._qt.hint_line import HintLine, header_row, help_button
from napari_samexp._qt.settings_form import SettingsForm
from napari_samexp._qt.text import PlainLabel, tooltip
from napari_samexp._qt.tracking.recordings_list import RecordingsList
from napari_samexp._qt.tracking.timeline import Timeline
from napari_samexp._qt.tracking.welcome import Welcome
from napari_samexp.session.preferences import Preferences
from napari_samexp.tracking.settings import TrackSettings

__all__ = ["FRAME_CHOICES", "Panel", "Section"]

MOST_SCORES = 4  # lines
SCORES_TIP = "The scores of the frame in view."
FRAME_CHOICES = ("all", "from here", "backward from here", "range")
DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("float32", "fast", "bfloat16", "float16", "auto")
Control = TypeVar("Control", bound=QWidget)


class Section(QWidget):
    """A headline that folds what is below it."""

    def __init__(self, title: str, tip: str, *, folded: bool = False) -> None:
        super().__init__()
        self.head = QToolButton()
        self.head.setText(title)
        self.head.setToolTip(tooltip(tip))
        self.head.setCheckable(True)
        self.head.setAutoRaise(True)
        self.head.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.head.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        font = self.head.font()
        font.setBold(True)
        self.head.setFont(font)
        self.body = QWidget()
        self.rows = QVBoxLayout(self.body)
        self.rows.setContentsMargins(2, 0, 2, 4)
        self.rows.setSpacing(4)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self.head)
        column.addWidget(self.body)
        self.head.toggled.connect(self._fold)
        self.head.setChecked(not folded)
        self._fold(not folded)

    def _fold(self, is_open: bool) -> None:
        self.head.setArrowType(Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow)
        self.body.setVisible(is_open)


class Panel(QWidget):
    """Every control of the dock, as attributes that are called as their ``objectName``."""

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
        self.reopen = _button("Reopen", "reopen", "Bring back what you had last time.")
        self.reopen.hide()
        column.addWidget(self.reopen)
        for section in (self._model(), self._show_object(), self._prior(), self._track(), self._settings()):
            column.addWidget(section)
        column.addStretch(1)

    def showEvent(self, event: Any) -> None:
        """Leave room for the longest hint, so that nothing jumps; napari's font is known only now."""
        self.hint.setMinimumHeight(3 * self.hint.fontMetrics().lineSpacing())
        super().showEvent(event)

    def _model(self) -> QWidget:
        self.model = _named(
            QComboBox(), "model", "The model. The starter comes along; others are downloaded once."
        )
        _shrinkable(self.model)
        form = _form()
        form.addRow("model", self.model)
        return _holder(form)

    def _show_object(self) -> Section:
        section = Section("1  Show the object", "Click on the object in an image, until the mask fits.")
        self.image = _named(
            QComboBox(), "image", "The image to click on: an image layer, also one frame of a video."
        )
        self.role = _named(
            QComboBox(),
            "role",
            "What a left click marks. X switches; Alt, Ctrl or the right button mark the other.",
        )
        self.role.addItems(["object", "background"])
        self.label = _named(
            QSpinBox(), "label", "The object's number. Recordings with the same label show the same."
        )
        self.label.setRange(1, 65535)
        self.name = _named(QLineEdit(), "name", "What you call the object; may stay empty.")
        self.name.setPlaceholderText("name")
        self.mask_choice = _named(
            QComboBox(),
            "mask_choice",
            "Which of the model's masks is meant, with the IoU that it predicts of each.",
        )
        self.draw_box = _button(
            "Box", "draw_box", "Draw a box around the object, beside or instead of clicks."
        )
        self.clear_prompt = _button(
            "Clear", "clear_prompt", "Remove all clicks and the box; Ctrl+Z brings clicks back."
        )
        self.record = _button("Record", "record", "Remember the object as it is marked now. (R)")
        _make_bold(self.record)
        for combo in (self.image, self.mask_choice):
            _shrinkable(combo)
        form = _form()
        form.addRow("image", self.image)
        form.addRow("click marks", self.role)
        form.addRow("label", _row(self.label, self.name, stretch=1))
        form.addRow("mask", self.mask_choice)
        section.rows.addLayout(form)
        section.rows.addWidget(_row(self.draw_box, self.clear_prompt, self.record))
        return section

    def _prior(self) -> Section:
        section = Section("2  What is remembered", "The recordings: all that tracking knows of the objects.")
        self.recordings = _named(
            RecordingsList(),
            "recordings",
            "The recordings. Untick one to leave it out; right-click for more.",
        )
        self.remove = _button("Remove", "remove", "Remove the selected recording. (Del)")
        self.undo = _button("Undo", "undo", "Take the last change of the recordings back.")
        self.save_prior = _button(
            "Save…", "save_prior", "Save the recordings as a prior file, for other videos."
        )
        self.load_prior = _button("Load…", "load_prior", "Take the recordings from a prior file.")
        section.rows.addWidget(self.recordings)
        section.rows.addWidget(_row(self.remove, self.undo, self.save_prior, self.load_prior))
        return section

    def _track(self) -> Section:
        section = Section(
            "3  Find it in a video", "Track what is remembered through a video that was never clicked on."
        )
        self.video = _named(QComboBox(), "video", "The video to track in.")
        _shrinkable(self.video)
        self.open_video = _button("Open…", "open_video", "Open a video, frame by frame as it is looked at.")
        self.frames = _named(QComboBox(), "frames", "Which frames are tracked, and in which order.")
        self.frames.addItems(list(FRAME_CHOICES))
        self.first = _named(QSpinBox(), "first", "The first frame of the range.")
        self.last = _named(QSpinBox(), "last", "The last frame of the range.")
        self.range_row = _row(self.first, PlainLabel("to"), self.last)
        self.track = _button("Track", "track", "Find the remembered objects in the chosen frames.")
        self.pause = _button("Pause", "pause", "Stop after this frame, until Resume.")
        self.cancel = _button(
            "Cancel", "cancel", "Stop. What is finished stays, and Track can go on from there."
        )
        self.estimate = _named(
            PlainLabel(),
            "estimate",
            "How long the chosen frames take, from the first three frames tracked with this model here.",
        )
        self.estimate.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.use_side = _button(
            "Use 512",
            "use_side",
            "Track at a smaller side of the model's input, anew and beside the labels that there are: "
            "much faster, and small things get lost.",
        )
        self.use_side.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.use_side.hide()
        self.progress = _named(
            QProgressBar(), "progress", "Frames done, frames a second, and the time that is left."
        )
        self.progress.setTextVisible(True)
        self.progress.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.scores_line = _named(PlainLabel(" "), "scores_line", SCORES_TIP)
        self.scores_line.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.scores_line.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.timeline = _named(
            Timeline(), "timeline", "Presence and predicted IoU over time; click to go there."
        )
        self.previous_lost = _button(
            "◀ Lost", "previous_lost", "Go to the previous place where it was lost. (Shift+N)"
        )
        self.next_lost = _button("Lost ▶", "next_lost", "Go to the next place where it was lost. (N)")
        self.remember_frame = _button(
            "Remember this frame",
            "remember_frame",
            "Take the label painted on this frame, or the clicks on it, into the memory of this run.",
        )
        self.reset_memory = _button(
            "Reset memory",
            "reset_memory",
            "Forget the frames seen lately; the next one sees the recordings alone.",
        )
        _make_bold(self.track)
        form = _form()
        form.addRow("video", _row(self.video, self.open_video, stretch=0))
        form.addRow("frames", self.frames)
        form.addRow("", self.range_row)
        section.rows.addLayout(form)
        section.rows.addWidget(_row(self.track, self.pause, self.cancel))
        section.rows.addWidget(_row(self.estimate, self.use_side, stretch=0))
        for widget in (
            self.progress,
            self.timeline,
            self.scores_line,
            _row(self.previous_lost, self.next_lost),
        ):
            section.rows.addWidget(widget)
        section.rows.addWidget(_row(self.remember_frame, self.reset_memory))
        return section

    def show_scores(self, lines: list[str], objects: int) -> None:
        """Show the scores of the frame in view, a line for each object; beyond a few, the rest in the tooltip.

        The room is that of all objects, so that nothing moves while frames without scores pass by.
        """
        label, shown, told = self.scores_line, lines, [SCORES_TIP]
        if len(lines) > MOST_SCORES:
            shown = [*lines[: MOST_SCORES - 1], f"and {len(lines) - MOST_SCORES + 1} more"]
            told += lines
        label.setText("\n".join(shown))
        label.setToolTip(tooltip("\n".join(told)))
        rows = min(MOST_SCORES, max(1, objects))
        label.setMinimumHeight(rows * QFontMetrics(label.font()).lineSpacing())

    def _settings(self) -> Section:
        section = Section("Settings", "Every knob, with its default; hover for what it does.", folded=True)
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


def _named(control: Control, name: str, tip: str) -> Control:
    control.setObjectName(name)
    control.setToolTip(tooltip(tip))
    control.setAccessibleName(name.replace("_", " "))
    return control


def _button(text: str, name: str, tip: str) -> QPushButton:
    button = _named(QPushButton(text), name, tip)
    # a narrow dock squeezes buttons rather than growing a scroll bar
    button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    button.setMinimumWidth(QFontMetrics(button.font()).horizontalAdvance(text) + 14)
    return button


def _make_bold(button: Any) -> None:
    """Let the two buttons that matter stand out."""
    font = button.font()
    font.setBold(True)
    button.setFont(font)


def _shrinkable(combo: Any) -> None:
    """Keep a long layer name from widening the dock."""
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(10)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


def _row(*widgets: QWidget, stretch: int | None = None) -> QWidget:
    holder = QWidget()
    row = QHBoxLayout(holder)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(4)
    for place, widget in enumerate(widgets):
        row.addWidget(widget, int(stretch == place) if stretch is not None else 0)
    return holder


def _form() -> QFormLayout:
    form = QFormLayout()
    form.setContentsMargins(0, 0, 0, 0)
    form.setVerticalSpacing(4)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form


def _holder(layout: Any) -> QWidget:
    holder = QWidget()
    layout.setContentsMargins(2, 0, 2, 0)
    holder.setLayout(layout)
    return holder
