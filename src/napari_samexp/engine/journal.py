"""The session's prior on disk: every change is a file, so that no kill loses a recording or an undo step."""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_samexp._private import private_folder
from napari_samexp.engine.messages.prompts import PriorState, RecordingInfo
from napari_samexp.errors import ImageError, PriorError, SamexpError, code_of
from napari_samexp.images import to_rgb8
from napari_samexp.io.atomic import remove_partials, write_atomic
from napari_samexp.io.guarded import open_folder, require_ordinary
from napari_samexp.io.image import read_image
from napari_samexp.sam.features import Memory
from napari_samexp.tracking.prior import PriorMemory
from napari_samexp.tracking.recording import Recording

__all__ = ["PriorJournal", "keys_of", "state_of"]

MOST_REVISIONS = 20
_NAME = re.compile(r"(\d{8,})-(\d{4,})-(\d+)\.(safetensors|empty)")
_log = logging.getLogger(__name__)


class PriorJournal:
    """The prior of a session and its last changes, in files ``REVISION-DEPTH-REQUEST.safetensors``.

    The highest revision is the prior; REQUEST is the number of the request that made it. DEPTH counts the changes
    that lead to it: undo is a new revision with the depth before, and with the content of the last file of that depth.

    Parameters
    ----------
    folder : Path
        Created if missing.

    Attributes
    ----------
    prior : PriorMemory
    images : RecordedImages
    notice : SamexpError or None
        Why the newest file could not be read, if so.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.images = RecordedImages(folder / "pictures")
        self.prior = PriorMemory()
        self.notice: SamexpError | None = None
        self._revision = self._depth = 0
        try:
            require_ordinary(folder, "folder")
            private_folder(folder)
            remove_partials(folder)
            self._restore()
            remove_partials(folder / "pictures")
        except OSError as error:
            self.notice = SamexpError(
                f"The session's folder {folder} cannot be used ({error.strerror or error}).",
                code=code_of(error, "session-folder"),
            )

    @property
    def undoable(self) -> bool:
        """Whether there is a change to undo."""
        return self._depth > 0 and (self._depth == 1 or self._file_of_depth(self._depth - 1) is not None)

    @property
    def changes(self) -> frozenset[int]:
        """The numbers of the requests that made the last revisions."""
        with suppress(OSError):
            return frozenset(request for _, _, request, _ in self._files())
        return frozenset()

    def commit(self, prior: PriorMemory, request: int) -> None:
        """Make `prior` the session's; `PriorError` if it cannot be written, and the old one stays."""
        self._write(prior, self._depth + 1, request)

    def undo(self, request: int) -> None:
        """Undo the last change; `PriorError` if there is none."""
        if not self.undoable:
            raise PriorError("There is no change of the recordings to undo.")
        before = self._file_of_depth(self._depth - 1)
        self._write(PriorMemory() if before is None else _load(before), self._depth - 1, request)

    def keep_image(self, key: str, rgb: npt.NDArray[np.uint8]) -> None:
        """Store a recorded image, so that another model can encode it; a full disk is only logged."""
        path = self.images.path(key)
        try:
            require_ordinary(self._folder, "folder")
            require_ordinary(path.parent, "folder")
            private_folder(path.parent)
            if not require_ordinary(path, "file"):
                data = io.BytesIO()
                Image.fromarray(rgb).save(data, "PNG", compress_level=1)
                write_atomic(path, data.getvalue(), private=True)
        except OSError:
            _log.warning("the recorded image could not be kept", exc_info=True)

    def _write(self, prior: PriorMemory, depth: int, request: int) -> None:
        stem = f"{self._revision + 1:08d}-{depth:04d}-{request}"
        try:
            require_ordinary(self._folder, "folder")
            ending, content = ("safetensors", prior.to_bytes()) if prior.recordings else ("empty", b"")
            write_atomic(self._folder / f"{stem}.{ending}", content, private=True)
        except OSError as error:
            raise PriorError(
                f"The recordings cannot be kept in {self._folder} ({error.strerror or error}); "
                "make room there and record again.",
                code=code_of(error, "disk-full"),
            ) from error
        self.prior, self._revision, self._depth = prior, self._revision + 1, depth
        with suppress(OSError):
            old = [
                path.name for number, _, _, path in self._files() if number <= self._revision - MOST_REVISIONS
            ]
            with open_folder(self._folder) as folder:
                for name in old:
                    folder.unlink(name)

    def _restore(self) -> None:
        for revision, depth, _, path in sorted(self._files(), reverse=True):
            self._revision = max(self._revision, revision)
            try:
                self.prior, self._depth = _load(path), depth
            except PriorError as error:  # a damaged disk, since a file appears only when it is complete
                self.notice = SamexpError(
                    f"{error} An older state of the recordings is shown.", code=error.code
                )
                continue
            return

    def _file_of_depth(self, depth: int) -> Path | None:
        files = [(revision, path) for revision, other, _, path in self._files() if other == depth]
        return max(files)[1] if files else None

    def _files(self) -> Iterator[tuple[int, int, int, Path]]:
        with open_folder(self._folder) as folder:
            names = [name for name in folder.names() if folder.kind(name) == "file"]
        for match in filter(None, map(_NAME.fullmatch, names)):
            yield int(match[1]), int(match[2]), int(match[3]), self._folder / match[0]


class RecordedImages(Mapping[str, npt.NDArray[np.uint8]]):
    """Recorded images by `image_hash`, read on access."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: str) -> Path:
        """Return the path of an image, there or not; a key is hashed, as it can come from a foreign file."""
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.png"

    def __getitem__(self, key: str) -> npt.NDArray[np.uint8]:
        path = self.path(key)
        try:
            require_ordinary(path.parent, "folder")
            require_ordinary(path, "file")
            return to_rgb8(read_image(path))
        except (ImageError, OSError):
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError("images are found by their key")

    def __len__(self) -> int:
        return sum(1 for _ in self._folder.glob("*.png"))


def _load(path: Path) -> PriorMemory:
    return PriorMemory() if path.suffix == ".empty" else PriorMemory.load(path)


def keys_of(prior: PriorMemory) -> list[str]:
    """Return a key for each recording that does not depend on the others, nor on a restart."""
    seen: Counter[str] = Counter()
    keys = []
    for recording, memory in zip(prior.recordings, prior.memories):
        key = _digest(recording, memory)
        keys.append(f"{key}-{seen[key]}" if seen[key] else key)
        seen[key] += 1
    return keys


def _digest(recording: Recording, memory: Memory) -> str:
    prompt = recording.prompt
    digest = hashlib.sha256(f"{recording.image_hash} {recording.mask_index}".encode())
    digest.update(memory.pointer.detach().float().cpu().numpy().tobytes())
    digest.update(prompt.points_xy.tobytes() + prompt.labels.tobytes())
    return digest.hexdigest()[:16]


def state_of(journal: PriorJournal, weights: str | None) -> PriorState:
    """Return the journal's prior as it is shown.

    Parameters
    ----------
    weights : str or None
        SHA-256 of the model's weights, None while there is no model.
    """
    prior = journal.prior
    infos = (
        _info(key, recording, weights is None or recording.weights == weights)
        for key, recording in zip(keys_of(prior), prior.recordings)
    )
    return PriorState(tuple(infos), journal.undoable, journal.changes)


def _info(key: str, recording: Recording, usable: bool) -> RecordingInfo:
    return RecordingInfo(
        key=key,
        label=recording.label,
        name=recording.name,
        image_name=recording.image_name,
        iou=recording.iou,
        presence=recording.presence,
        thumbnail=recording.thumbnail,
        prompt=recording.prompt,
        mask_index=recording.mask_index,
        enabled=recording.enabled,
        painted=recording.mask is not None,
        usable=usable,
        model=recording.model,
    )
