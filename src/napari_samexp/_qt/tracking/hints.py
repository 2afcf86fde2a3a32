"""The line at the top of the dock: the next step."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Standing", "hint_for"]

_TRACKED = "Tracked. Drag the slider to look at the result."
_CORRECT = "Paint there, or choose the video as image and click; then press Remember this frame."


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of the dock, as far as the next step depends on it.

    Parameters
    ----------
    model : str
        "none", "loading", "ready" or "failed".
    loading : str
        Progress of loading, such as "12 of 156 MB".
    job : str
        The state of the run.
    lost : int
        Number of frames in which an object was lost.
    left : bool
        Whether the last session can be reopened.
    covered : str
        The layer that covers the image to click on; empty if none.
    to_select : str
        The layer to select so that clicks count; empty if they do.
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
        return "Choose a model above. The starter is bundled and ready at once."
    if now.model == "loading" and now.loading:
        return f"Loading the model: {now.loading}."
    if now.model == "failed":
        return "No model is loaded; choose one above."
    if not now.has_memory:
        return "SAM 1 can segment but has no memory. Choose a SAM 2 model to track."
    return ""


def _of_job(now: Standing) -> str:
    frames = "1 frame" if now.lost == 1 else f"{now.lost} frames"
    lost = f"Lost in {frames}: press N to look." if now.lost else ""
    return {
        "starting": "Tracking starts. You can scrub, zoom and paint meanwhile.",
        "tracking": f"Tracking. You can scrub, zoom and paint meanwhile. {lost}",
        "paused": "Paused. Press Resume to continue.",
        "cancelled": "Stopped; finished frames stay. Press Resume to continue.",
        "failed": "Tracking stopped. Press Resume to try again.",
        "interrupted": "The model is starting again; tracking will continue by itself.",
        "finished": f"{lost} {_CORRECT}" if lost else _TRACKED,
    }.get("" if now.prompted else now.job, "").strip()


def _of_prompt(now: Standing) -> str:
    if now.prompted and now.covered:
        return f"{now.covered} covers the image to click on: hide it, or choose it as the image."
    if now.prompted and not now.previewed:
        return "Computing the mask …"
    if now.left and not now.prompted and not now.recordings:
        return "Reopen your last session, or start with an image of your object."
    if not (now.prompted or now.recordings or now.images):
        return "Open an image of your object: drop a file, or File > Open Sample > SAM experiments."
    return _of_unselected(now) if now.to_select else _of_clicks(now)


def _of_clicks(now: Standing) -> str:
    if now.prompted:
        return "Press Record (R), or click again to correct the mask; X marks background."
    if now.recordings and not now.video:
        return "Recorded. Now open the video to find it in (Open… below), or record more images of it."
    if now.recordings:
        return "Press Track to find it in the video, or click again to record more."
    return "Click on your object in the image."


def _of_unselected(now: Standing) -> str:
    """As `_of_clicks`, while another layer is selected and takes the clicks."""
    select = f"select the layer “{now.to_select}” in the layer list"
    if now.covered:
        select = f"choose “{now.covered}” as the image"
    if now.prompted:
        return f"Press Record (R); to click again, {select} first."
    if now.recordings and not now.video:
        return f"Recorded. Now open the video to find it in (Open… below); to record more, {select} first."
    if now.recordings:
        return f"Press Track to find it in the video; to click again, {select} first."
    return f"Clicks go to another layer: {select}, then click on your object."
