"""The official weight files: their names, addresses and checksums. Data alone: no torch, no network, no cache."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CACHE_VARIABLE", "HASH_MARK", "OFFICIAL", "STARTER", "OfficialFile"]

STARTER = "starter"
HASH_MARK = "#sha256="  # as in pip
CACHE_VARIABLE = "NAPARI_SAMEXP_CACHE"


@dataclass(frozen=True, slots=True)
class OfficialFile:
    """One of Meta's weight files.

    Parameters
    ----------
    name : str
        The name that people type, such as ``"sam2.1_hiera_tiny"``.
    file : str
        Its name in the cache folder.
    url : str
        Where Meta publishes it.
    bytes : int
        Its size; approximate where there is no SHA-256.
    sha256 : str
        64 lower-case hexadecimal digits. Meta publishes none; several projects pin these.
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


# it is in the repository itself; the address names the commit, so that it stays the same file
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
