"""What several tests of models share."""

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let downloads go to a folder of the test, straight to the test's own server."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("NAPARI_SAMEXP_CACHE", str(folder))
    monkeypatch.setenv("NAPARI_SAMEXP_HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return folder
