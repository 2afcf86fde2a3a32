"""The one line that says what to do next."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Standing", "hint_for"]

_TRACKED = "Tracked. Drag the slider to look."
_CORRECT = "Paint there, or choose the video as image and click; then Remember this frame."


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a person has come.

    Parameters
    ----------
    model : str
        "none", "loading", "ready" or "failed".
    loading : str
        What loading is doing, such as "12 of 156 MB".
    job : str
        The state of the run.
    lost : int
        Frames in which something was lost.
    left : bool
        Whether there is something of the last time to be reopened.
    covered : str
        What lies over the image that is clicked on.
    to_select : str
        The layer that has to be selected before clicks count; empty if they do.
    """

    model: str = "none"
    loading: str = ""
    has_memory: bool = True
    images: bool = False
    prompted: bool = False
    previewed: bool = False
    recordings: int = 0
    video: bool = False
    job: str = "idle"
    lost: int = 0
    left: bool = False
    covered: str = ""
    to_select: str = ""


def hint_for(now: Standing) -> str:
    """Return the next step in one or two short sentences."""
    return _of_model(now) or _of_job(now) or _of_prompt(now)


def _of_model(now: Standing) -> str:
    if now.model == "none":
        return "Choose a model above. The starter comes along and is ready at once."
    if now.model == "loading" and now.loading:
        return f"Loading the model: {now.loading}."
    if now.model == "failed":
        return "There is no model; choose one above."
    if not now.has_memory:
        return "SAM 1 marks objects but cannot remember them. Choose a SAM 2 model to track."
    return ""


def _of_job(now: Standing) -> str:
    frames = "1 frame" if now.lost == 1 else f"{now.lost} frames"
    lost = f"Lost in {frames}: press N to look." if now.lost else ""
    return {
        "starting": "Tracking begins. Scrub, zoom and paint meanwhile.",
        "tracking": f"Tracking. Scrub, zoom and paint meanwhile. {lost}",
        "paused": "Paused. Press Resume to go on.",
        "cancelled": "Stopped; what is finished stays. Press Resume to go on.",
        "failed": "Tracking stopped. Press Resume to try again.",
        "interrupted": "The model is being started again; tracking goes on by itself.",
        "finished": f"{lost} {_CORRECT}" if lost else _TRACKED,
    }.get("" if now.prompted else now.job, "").strip()


def _of_prompt(now: Standing) -> str:
    if now.prompted and now.covered:
        return f"{now.covered} lies over the image that you click on: hide it, or choose it as the image."
    if now.prompted and not now.previewed:
        return "The mask comes in a moment …"
    if now.left and not now.prompted and not now.recordings:
        return "Reopen what you had last time, or begin anew with an image of your object."
    if not (now.prompted or now.recordings or now.images):
        return "Open an image of your object: drop a file, or File > Open Sample > SAM experiments."
    return _of_elsewhere(now) if now.to_select else _of_clicks(now)


def _of_clicks(now: Standing) -> str:
    if now.prompted:
        return "Press Record (R), or click again to correct the mask; X marks background."
    if now.recordings and not now.video:
        return "Recorded. Now open the video to find it in (Open… below), or show more of it."
    if now.recordings:
        return "Press Track to find it in the video, or click once more to remember more."
    return "Click on your object in the image."


def _of_elsewhere(now: Standing) -> str:
    """As `_of_clicks`, while another layer is selected, so that a click would do nothing."""
    select = f"select the layer “{now.to_select}” in the layer list"
    if now.covered:
        select = f"choose “{now.covered}” as the image"
    if now.prompted:
        return f"Press Record (R); to click again, {select} first."
    if now.recordings and not now.video:
        return f"Recorded. Now open the video to find it in (Open… below); to show more, {select} first."
    if now.recordings:
        return f"Press Track to find it in the video; to click once more, {select} first."
    return f"Clicks go to another layer now: {select}, then click on your object."
