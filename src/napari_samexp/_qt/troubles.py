"""Which entry of the troubleshooting page explains the code of an error."""

from __future__ import annotations

__all__ = ["TROUBLES"]

TROUBLES = {
    "shared-memory-full": "Shared memory is full",
    "out-of-memory": "Out of memory",
    "worker-ended": "The model's process ended",
    "fault": "A fault of the program",
    "link": "A link among the files",
    "disk-full": "The disk is full",
    "offline": "Offline machines",
    "download-damaged": "A download was damaged",
    "weights-refused": "A weights file is refused",
    "no-memory-model": "SAM 1 cannot track",
    "video-size-changes": "The size changes within a video",
    "video-unreadable": "A video cannot be read",
    "image-unreadable": "An image cannot be read",
    "labels-in-use": "The labels are in use",
    "labels-of-another-run": "The labels are of another run",
    "labels-painted": "Labels were painted by hand",
    "prior-of-another-model": "The prior is of another model",
}
"""The headlines of entries in ``docs/troubleshooting.md``, by `SamexpError.code`; other codes have none."""
