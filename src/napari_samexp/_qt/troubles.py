"""Which entry of the troubleshooting page explains a sentence that went wrong."""

from __future__ import annotations

from dataclasses import dataclass

from napari_samexp._qt.help_pages import slug

__all__ = ["TROUBLES", "Trouble", "trouble_of"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """An entry of ``docs/troubleshooting.md``.

    Parameters
    ----------
    title : str
        Its headline there.
    says : tuple of str
        Words that only the sentences which it explains have. Sentences come from another process, where the
        errors' classes stayed, so words are what there is.
    """

    title: str
    says: tuple[str, ...]

    @property
    def anchor(self) -> str:
        """The headline's address in the page."""
        return slug(self.title)


# the first that fits is meant
TROUBLES = (
    Trouble("Shared memory is full", ("Shared memory of ",)),
    Trouble("Out of memory", ("There was not enough memory", ", often for want of memory")),
    Trouble(
        "The model's process ended", ("The model's process was ended", "The model's process ended by itself")
    ),
    Trouble("A fault of the program", ("Something unexpected went wrong",)),
    Trouble("A link among the files", (" and no ordinary ", "has a second name (it is a hard link)")),
    Trouble("The disk is full", ("cannot be kept in ",)),
    Trouble("Offline machines", (" could not be downloaded (",)),
    Trouble("A download was damaged", (" is damaged or another file",)),
    Trouble(
        "A weights file is refused",
        (
            ", no weights file",
            "download it again, or ask where you got it",
            " asks to run ",
            " does not fit ",
            " cannot be read as weights ",
            " is a TorchScript program",
            " is a zip archive without weights",
            " has values that are not finite numbers in ",
            "entries that are no floating-point tensors",
            "expected the keys of SAM 1",
            " which is no official size",
        ),
    ),
    Trouble("SAM 1 cannot track", (" is a SAM 1 model, which has no memory",)),
    Trouble("The size changes within a video", ("convert the video to one size",)),
    Trouble(
        "A video cannot be read",
        (
            " cannot be opened as a video ",
            " has no video, only ",
            " cannot be decoded: ",
            " has no frame that can be decoded",
        ),
    ),
    Trouble(
        "An image cannot be read", ("expected at most one time axis", " is not an image that can be read")
    ),
    Trouble("The labels are in use", ("Another process or job writes ",)),
    Trouble("The labels are of another run", ("The label store ",)),
    Trouble("Labels were painted by hand", (" were painted by hand, and ",)),
    Trouble("The prior is of another model", ("The prior was recorded with ",)),
)


def trouble_of(sentence: str) -> Trouble | None:
    """Return the entry that explains a sentence, or None."""
    return next((entry for entry in TROUBLES if any(words in sentence for words in entry.says)), None)
