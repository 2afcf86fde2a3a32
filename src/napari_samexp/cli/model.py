"""Find, download and load the model of a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_samexp._text import one_line
from napari_samexp._urls import redacted_url
from napari_samexp.cli.arguments import require_memory
from napari_samexp.cli.options import DeviceOptions
from napari_samexp.cli.progress import progress
from napari_samexp.errors import CheckpointError, PriorError, PriorMismatch, sam1_has_no_memory
from napari_samexp.sam.weights.cache import fetch, locate, may_have_made
from napari_samexp.sam.weights.catalogue import HASH_MARK, OFFICIAL, STARTER
from napari_samexp.sam.weights.hashes import sha256_of

if TYPE_CHECKING:
    from napari_samexp.sam.sam2 import Sam2
    from napari_samexp.tracking.prior import PriorMemory

__all__ = ["load", "name_for", "pinned"]


def load(name: str, hardware: DeviceOptions, *, quiet: bool) -> Sam2:
    """Return a model that has a memory, and show the progress of its download.

    Raises
    ------
    PriorError
        If it is a SAM 1 model.
    CheckpointError, SettingsError
        As `load_model`.
    """
    from napari_samexp.sam.sam1 import Sam1
    from napari_samexp.sam.weights.loading import choose_device, choose_dtype, load_model

    require_memory(name)
    choose_dtype(hardware.dtype, choose_device(hardware.device))
    with progress(f"Downloading {one_line(redacted_url(name))}", "bytes", quiet=quiet) as update:
        fetch(name, progress=update)
    model = load_model(name, device=hardware.device, dtype=hardware.dtype, graphs=hardware.graphs)
    if isinstance(model, Sam1):
        raise sam1_has_no_memory(model.variant.name)
    return model


def pinned(name: str, sha256: str | None) -> str:
    """Return a model's name after its file was found to have a SHA-256; an address keeps the hash for later.

    Raises
    ------
    CheckpointError
        If the file has another hash, or the hash is malformed.
    """
    if sha256 is None:
        return name
    if name.lower().startswith(("https://", "http://")):
        return f"{name}{HASH_MARK}{sha256}"
    path, official = locate(name), OFFICIAL.get(name)
    found = sha256_of(path) if path is not None else official.sha256 if official else ""
    if found != sha256.strip().lower():
        raise CheckpointError(
            f"{one_line(name)} has the SHA-256 {found or 'that is not known yet'}, not {one_line(sha256)}; "
            "leave out --sha256, or give another file."
        )
    return name


def name_for(prior: PriorMemory, given: str | None, *, again: bool) -> str:
    """Return the name or path of the model to track with: the one given, or the one that made the prior.

    Parameters
    ----------
    again : bool
        Whether the recorded images are given, so that another model can encode them again.

    Raises
    ------
    PriorError, PriorMismatch
        If the prior names no known file, or an official model is given that did not make it.
    """
    made_by = prior.recordings[0]
    official = OFFICIAL.get(given or made_by.model)
    matches = official is not None and may_have_made(official, made_by.model, made_by.weights)
    if given is None:
        if made_by.model == STARTER or matches:
            return made_by.model
        raise PriorError(
            f"The prior was recorded with weights of your own ({one_line(made_by.model)}, "
            f"SHA-256 {one_line(made_by.weights[:12])}...); give their path with --model."
        )
    require_memory(given)
    if official is not None and not again and not matches:  # found out before gigabytes are downloaded
        raise PriorMismatch(
            f"The prior was recorded with {one_line(made_by.model)}, not with {given}; leave out --model, "
            "or give the recorded images with --image."
        )
    return given
