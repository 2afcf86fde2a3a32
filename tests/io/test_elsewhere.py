"""Which paths in files lead to another computer, as Windows and as other systems read them."""

from __future__ import annotations

import pytest

from napari_samexp.io.elsewhere import other_computer

SHARES = [
    r"\\host\share\x.mp4",
    "//host/share/x.mp4",
    r"/\host\share",
    r"\/host/share",
    r"\\HOST\share",
    r"\\host@SSL@443\DavWWWRoot\x",
    r"\\?\UNC\host\share\x",
    "//?/unc/host/share",
    r"\\.\UNC\host\share",
    r"\??\UNC\host\share",
    r"\\\host\share",
    "file:////host/share/x.mp4",
    "file:///%5C%5Chost/share",
]
URLS = ["file://host/share/x.mp4", r"file:\\host\share", "smb://user:secret@host/x", "https://host/x.tif"]
HERE = [
    "",
    "x.mp4",
    "../a/x.mp4",
    r"..\a\x.mp4",
    r"C:\videos\x.mp4",
    "C:/videos//x.mp4",
    "c:x.mp4",
    r"\videos\x.mp4",
    "/home/me//host/x.mp4",
    r"\\?\C:\videos\x.mp4",
    r"\\?\Volume{b75e2c83-0000}\x.mp4",
    "file:///C:/x.mp4",
    "file://localhost/C:/x.mp4",
    "a: b.mp4",
]


@pytest.mark.parametrize("path", [*SHARES, *URLS])
def test_windows_asks_another_computer(path: str) -> None:
    assert other_computer(path, windows=True) == "host"


@pytest.mark.parametrize("path", HERE)
def test_nothing_is_asked(path: str) -> None:
    assert other_computer(path, windows=True) == "" == other_computer(path, windows=False)


@pytest.mark.parametrize("path", SHARES)
def test_elsewhere_these_are_names_of_files(path: str) -> None:
    assert other_computer(path, windows=False) == ""


@pytest.mark.parametrize("path", URLS)
def test_addresses_lead_away_everywhere(path: str) -> None:
    assert other_computer(path, windows=False) == "host"


@pytest.mark.parametrize("path", [r"\\", r"\\?", r"\\.\pipe\x", r"\\?\GLOBALROOT\Device\Mup\host\x", "//"])
def test_what_cannot_be_read_counts_as_elsewhere(path: str) -> None:
    assert other_computer(path, windows=True)


def test_the_computer_of_the_file_itself_is_known_already() -> None:
    assert other_computer(r"\\nas\data\x.mp4", r"\\NAS\data\x.zarr", windows=True) == ""
    assert other_computer(r"\\nas\data\x.mp4", r"\\other\data\x.zarr", windows=True) == "nas"
    assert other_computer(r"\\nas\data\x.mp4", r"C:\data\x.zarr", windows=True) == "nas"
