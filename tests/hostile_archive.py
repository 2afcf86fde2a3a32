"""Folders as an archive leaves them that somebody made to harm: with links to what lies where it is unpacked.

Python's safest way of unpacking ("data") lets such links pass, since they lead to nothing outside.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

HEX = "0123456789abcdef" * 2
THESIS = {
    "notes": b"one line, years of work\n",
    "new/a": b"1",
    "trash/b": b"2",
    "old/c": b"3",
    "prior/00000001-0001-1.safetensors": b"4",
    "images/a.png": b"5",
    f"draft.{HEX}.partial": b"6",
    "000000003.safetensors": b"7",
    "0001-0001-1.empty": b"8",
    "lock": b"9",
}


def write_thesis(folder: Path) -> Path:
    """Write what a person has: names that ours resemble, all of it precious; return its folder."""
    for name, data in THESIS.items():
        path = folder / "thesis" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / "thesis"


def require_untouched(folder: Path) -> None:
    """Check that all of the thesis is there, byte for byte, and nothing more."""
    thesis = folder / "thesis"
    there = {path.relative_to(thesis).as_posix(): path for path in thesis.rglob("*") if not path.is_dir()}
    assert {name: path.read_bytes() for name, path in there.items()} == THESIS
    assert not any(path.is_symlink() for path in there.values())
    folders = {path.relative_to(thesis).as_posix() for path in thesis.rglob("*") if path.is_dir()}
    assert folders == {name.rpartition("/")[0] for name in THESIS} - {""}


def send(tree: Path, to: Path, links: Mapping[str, str], hard: Mapping[str, str] | None = None) -> None:
    """Pack what lies in `tree` with links in the place of some of it, and unpack it in `to`.

    Parameters
    ----------
    links, hard : mapping of str to str
        From the path of a link in the archive to the path that it leads to, both from the archive's top.
    """
    replaced = {*links, *(hard or {})}

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if member.name in replaced else member

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for entry in sorted(tree.iterdir()):
            archive.add(entry, entry.name, filter=kept)
        for kind, some in ((tarfile.SYMTYPE, links), (tarfile.LNKTYPE, hard or {})):
            for name, target in some.items():
                member = tarfile.TarInfo(name)
                member.type = kind
                member.linkname = (
                    target if kind == tarfile.LNKTYPE else os.path.relpath(target, Path(name).parent)
                )
                archive.addfile(member)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        archive.extractall(to, filter="data")
