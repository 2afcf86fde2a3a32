"""Getting a model ready, with a bar while it is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_samexp._text import one_line
from napari_samexp._urls import redacted_url
from napari_samexp.cli.arguments import require_memory
from napari_samexp.cli.progress import progress
from napari_samexp.errors import CheckpointError, PriorError, PriorMismatch
from napari_samexp.sam.weights.cache import fetch, locate, may_have_made
from napari_samexp.sam.weights.catalogue import HASH_MARK, OFFICIAL, STARTER
from napari_samexp.sam.weights.hashes import sha256_of

if TYPE_CHECKING:
    from napari_samexp.sam.models import Sam2
    from napari_samexp.tracking.prior import PriorMemory

__all__ = ["load", "name_for", "pinned"]


def load(name: str, *, device: str, dtype: str, quiet: bool, graphs: bool = False) -> Sam2:
    """Return a model that can remember.

    Raises
    ------
    PriorError
        If it is one of SAM 1.
    CheckpointError, SettingsError
        As `load_model`.
    """
    from napari_samexp.sam.models import Sam1
    from napari_samexp.sam.weights.loading import choose_device, choose_dtype, load_model

    require_memory(name)
    choose_dtype(dtype, choose_device(device))
    with progress(f"Downloading {one_line(redacted_url(name))}", "bytes", quiet=quiet) as update:
        fetch(name, progress=update)
    model = load_model(name, device=device, dtype=dtype, graphs=graphs)
    if isinstance(model, Sam1):
        model.remember()  # says that it cannot
        raise AssertionError
    return model


def pinned(name: str, sha256: str | None) -> str:
    """Return the name of a model that has to be a certain file: as it is if it is that file.

    Raises
    ------
    CheckpointError
        If it is another file, or the hash is none.
    """
    if sha256 is None:
        return name
    if name.lower().startswith(("https://", "http://")):
        return f"{name}{HASH_MARK}{sha256}"
    path, official = locate(name), OFFICIAL.get(name)
    found = sha256_of(path) if path is not None else official.sha256 if official else ""
    if found != sha256.strip().lower():
        raise CheckpointError(
            f"{one_line(name)} has the SHA-256 {found or 'that nobody knows yet'}, not {one_line(sha256)}; "
            "leave out --sha256, or give another file."
        )
    return name


def name_for(prior: PriorMemory, given: str | None, *, again: bool) -> str:
    """Return the name or path of the model to track with: the one given, or the one that made the prior.

    Parameters
    ----------
    again : bool
        Whether the recorded images are there, to be encoded again by another model.

    Raises
    ------
    PriorError, PriorMismatch
        If the prior does not lead to a known file, or an official model is given that did not make it.
    """
    made_by = prior.recordings[0]
    wanted = OFFICIAL.get(given or made_by.model)
    if given is None:
        if made_by.model == STARTER or (
            wanted is not None and may_have_made(wanted, made_by.model, made_by.weights)
        ):
            return made_by.model
        raise PriorError(
            f"The prior was recorded with weights of your own ({one_line(made_by.model)}, "
            f"SHA-256 {one_line(made_by.weights[:12])}...); give their path with --model."
        )
    require_memory(given)
    if wanted is not None and not again and not may_have_made(wanted, made_by.model, made_by.weights):
        # known before gigabytes are downloaded
        raise PriorMismatch(
            f"The prior was recorded with {one_line(made_by.model)}, not with {given}; leave out --model, "
            "or give the recorded images with --image."
        )
    return given
