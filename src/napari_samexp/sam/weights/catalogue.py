"""The official weight files: where they come from, what they must be, and where they are kept. No torch."""

from __future__ import annotations

import difflib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from napari_samexp._private import private_folder
from napari_samexp._urls import redacted_url
from napari_samexp.errors import CheckpointError
from napari_samexp.sam.verified import difference
from napari_samexp.sam.weights.download import (
    Connection,
    Download,
    Progress,
    differs,
    download,
    plain,
    sha256_of,
)

__all__ = [
    "CACHE_VARIABLE",
    "HASH_MARK",
    "OFFICIAL",
    "STARTER",
    "Connection",
    "OfficialFile",
    "Progress",
    "cache_dir",
    "fetch",
    "fetch_url",
    "is_address",
    "locate",
    "official_of",
    "sha256_of",
]

STARTER = "starter"
HASH_MARK = "#sha256="  # as pip has it
CACHE_VARIABLE = "NAPARI_SAMEXP_CACHE"
_PATIENT = Connection()


@dataclass(frozen=True, slots=True)
class OfficialFile:
    """One of Meta's weight files.

    Parameters
    ----------
    name : str
        What people type, such as ``"sam2.1_hiera_tiny"``.
    file : str
        Its name in the cache folder.
    url : str
        Where Meta publishes it.
    bytes : int
        Its size; where there is no SHA-256, only about.
    sha256 : str
        64 lower-case hexadecimal digits. Meta publishes none; these are what several projects pin.
        Empty where nobody pins one.
    licence : str
        SPDX identifier.
    git_blob : str
        For a file without a SHA-256: its id in the git repository of its address, which holds the file
        itself, 40 lower-case hexadecimal digits; see `download.git_blob_of`.
    """

    name: str
    file: str
    url: str
    bytes: int
    sha256: str
    licence: str = "Apache-2.0"
    git_blob: str = ""

    def may_have_made(self, model: str, sha256: str) -> bool:
        """Whether memories of a model's name and weights can be from this file, as far as is known here."""
        if self.sha256:
            return self.sha256 == sha256
        path = cache_dir() / self.file
        if self.name != model or not path.is_file():
            return self.name == model
        return sha256_of(path) == sha256


_ADDRESS = "https://dl.fbaipublicfiles.com/"
_SAM1 = {
    "vit_b_01ec64": (375042383, "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
    "vit_l_0b3195": (1249524607, "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
    "vit_h_4b8939": (2564550879, "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
}
_SAM2 = {
    "tiny": (155906050, "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125"),
    "small": (184309650, "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3"),
    "base_plus": (323493298, "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071"),
    "large": (897952466, "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b"),
}
_SAM2_1 = {
    "tiny": (156008466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
    "small": (184416285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
    "base_plus": (323606802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
    "large": (898083611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
}


def _official(name: str, file: str, folder: str, facts: tuple[int, str]) -> OfficialFile:
    return OfficialFile(name, file, f"{_ADDRESS}{folder}/{file}", *facts)


# it lies in the repository itself; at the commit that the id was read in, so that it stays that file
_EDGETAM = OfficialFile(
    "edgetam",
    "edgetam.pt",
    "https://github.com/facebookresearch/EdgeTAM/raw/9cc44bfe9e16cc374242917b91283c718410ea87/checkpoints/edgetam.pt",
    56_000_000,
    sha256="",
    git_blob="abd54d22bbd22ba3e53cf59a307e59e0f3701be6",
)
OFFICIAL: dict[str, OfficialFile] = {
    entry.name: entry
    for entry in (
        *(_official(f"sam_{s[:5]}", f"sam_{s}.pth", "segment_anything", f) for s, f in _SAM1.items()),
        *(
            _official(f"{family}_hiera_{s}", f"{family}_hiera_{s}.pt", f"segment_anything_2/{date}", f)
            for family, date, sizes in (("sam2", "072824", _SAM2), ("sam2.1", "092824", _SAM2_1))
            for s, f in sizes.items()
        ),
        _EDGETAM,
    )
}


def cache_dir() -> Path:
    """Return the folder for downloaded weights, which need not exist yet.

    It is the user's cache folder of this system, or what the environment variable ``NAPARI_SAMEXP_CACHE``
    names.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return platformdirs.user_cache_path("napari-samexp", appauthor=False)


def locate(name_or_path: str | Path) -> Path | None:
    """Return where weights lie on this computer, without network.

    Parameters
    ----------
    name_or_path : str or Path
        ``"starter"``, a name from `OFFICIAL`, the path of a file of one's own, or an https address of one's
        own with the file's hash behind it: ``https://host/file.pt#sha256=`` and 64 hexadecimal digits.

    Returns
    -------
    Path or None
        None for an official file, or that of an address, that has not been downloaded yet.

    Raises
    ------
    CheckpointError
        If it is neither a known name nor a path that exists, or if the cache holds something else
        under an official file's name (one put there by hand is hashed once, then remembered).
    """
    if name_or_path == STARTER:
        return _starter()
    official = OFFICIAL.get(str(name_or_path))
    if official is None:
        return _kept(*_address(name_or_path)[1:]) if is_address(name_or_path) else _own_path(name_or_path)
    return _kept(cache_dir() / official.file, official.sha256, official.git_blob)


def fetch(
    name_or_path: str | Path | OfficialFile,
    *,
    progress: Progress | None = None,
    connection: Connection = _PATIENT,
) -> Path:
    """Return where weights lie, downloading an official file once into the cache.

    Parameters
    ----------
    name_or_path : str, Path or OfficialFile
        As for `locate`.
    progress : callable, optional
        Called often with the bytes on disk and the bytes in all (None where unknown); it may raise to stop
        the download, and the next call goes on from there.
    connection : Connection
        How patient to be with the server.

    Raises
    ------
    CheckpointError
        As `locate`, or if the file can neither be downloaded whole nor be verified; the sentence says from
        which address and to which folder it can be brought by hand.
    """
    if not isinstance(name_or_path, OfficialFile):
        if is_address(name_or_path):
            return fetch_url(
                *str(name_or_path).rsplit(HASH_MARK, 1), progress=progress, connection=connection
            )
        if str(name_or_path) not in OFFICIAL:
            return _starter() if name_or_path == STARTER else _own_path(name_or_path)
        name_or_path = OFFICIAL[str(name_or_path)]
    official = name_or_path
    target = cache_dir() / official.file
    size = official.bytes if official.sha256 else None
    return _kept_or_downloaded(
        Download(official.url, target, official.sha256, size, progress, connection, official.git_blob)
    )


def fetch_url(
    url: str,
    sha256: str,
    *,
    progress: Progress | None = None,
    connection: Connection = _PATIENT,
) -> Path:
    """Return where the file of one's own https address lies, downloading it once into the cache.

    Parameters
    ----------
    url : str
        An https address.
    sha256 : str
        64 hexadecimal digits: what the file must be. It is also the file's identity in the cache.
    progress : callable, optional
        Called often with the bytes on disk and the bytes in all (None where unknown); it may raise to stop
        the download, and the next call goes on from there.
    connection : Connection
        How patient to be with the server.

    Raises
    ------
    CheckpointError
        As `fetch`, or if the address or the hash is none.
    """
    url, target, digest = _address(f"{url}{HASH_MARK}{sha256}")
    return _kept_or_downloaded(Download(url, target, digest, None, progress, connection))


def is_address(name: object) -> bool:
    """Whether a model's name is an address with a hash, as `locate` takes it."""
    return isinstance(name, str) and HASH_MARK in name and name.lower().startswith(("https://", "http://"))


def _address(name: object) -> tuple[str, Path, str]:
    """Return the address, the place in the cache and the SHA-256 of a name that is an address."""
    url, _, given = str(name).rpartition(HASH_MARK)
    digest = given.strip().lower()
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise CheckpointError(
            f"What follows {HASH_MARK} is not a SHA-256; give the 64 hexadecimal digits of the file at "
            f"{plain(redacted_url(url))}."
        )
    return url, cache_dir() / f"{digest[:16]}-{_file_name(url)}", digest


def official_of(path: Path, sha256: str) -> OfficialFile | None:
    """Return the official file whose bytes a file of a known SHA-256 has, if there is one."""
    for entry in OFFICIAL.values():
        if entry.sha256 == sha256 or not (entry.sha256 or differs(path, "", entry.git_blob)):
            return entry
    return None


def _kept_or_downloaded(job: Download) -> Path:
    if not os.environ.get(CACHE_VARIABLE):  # a folder that somebody chose may be a group's on purpose
        with suppress(OSError):  # the download says why
            private_folder(cache_dir())
    path = _kept(job.target, job.sha256, job.git_blob)
    if path is None:
        path = download(job)
        _kept(path, job.sha256, job.git_blob)  # another process may have put it there in the meantime
    return path


def _starter() -> Path:
    path = Path(str(resources.files("napari_samexp") / "starter.safetensors"))
    if not path.is_file():
        raise CheckpointError(
            f"The bundled weights are not at {path}; install napari-samexp again, or name another model such "
            "as sam2.1_hiera_tiny."
        )
    return path


def _own_path(name_or_path: str | Path) -> Path:
    with suppress(OSError, ValueError, RuntimeError):  # too long, a NUL byte, a ~user that is none
        path = Path(name_or_path).expanduser()
        if path.exists():
            return path
    given = str(name_or_path)
    if given.lower().startswith(("http://", "https://")):
        raise CheckpointError(
            f"{plain(redacted_url(given))} is an address; give its SHA-256 too, behind it as {HASH_MARK}... or with --sha256."
        )
    known = [STARTER, *OFFICIAL]
    close = difflib.get_close_matches(given[:80], known, n=3) or known
    raise CheckpointError(
        f"There is no file {plain(given)!r} and no model of that name; give a path, or a name such as "
        f"{', '.join(close)}."
    )


def _kept(path: Path, sha256: str, git_blob: str = "") -> Path | None:
    """Return the path if it holds the right file, None if it holds nothing."""
    try:
        if not path.exists():
            return None
        if found := difference(path, sha256, git_blob):
            raise CheckpointError(
                f"{path} is damaged or another file: it has {found}; delete it, and it will be downloaded anew."
            )
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({plain(error.strerror)}); see to its permissions."
        ) from error
    return path


def _file_name(url: str) -> str:
    with suppress(ValueError):
        last = urlsplit(url).path.rpartition("/")[2]
        return re.sub("[^A-Za-z0-9._-]", "_", last)[-80:] or "weights"
    return "weights"
