"""Names of new label stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_samexp.session import default_store
from tests import hostile_archive


@pytest.mark.parametrize("target", ["thesis/notes", "nowhere"])
def test_new_labels_do_not_go_through_a_link_beside_a_video(tmp_path: Path, target: str) -> None:
    hostile_archive.write_thesis(tmp_path)
    (tmp_path / "clip.labels.zarr").symlink_to(tmp_path / target)
    assert default_store("clip.mp4", tmp_path) == tmp_path / "clip.labels-2.zarr"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("x" * 250 + ".mp4", "x" * 150),
        ("ü" * 120 + ".mp4", "ü" * 75),
        ("what? <now>: 1/2*.mp4", "2_"),
        ('a"b|c\\d?.tif', "a_b_c_d_"),
        ("aux.mp4", "aux_"),
        ("com1.old.mp4", "com1.old_"),
        ("ends. .mp4", "ends"),
        ("...", "video"),
    ],
)
def test_a_new_store_has_a_name_for_every_system(tmp_path: Path, name: str, stem: str) -> None:
    assert default_store(name, tmp_path) == tmp_path / f"{stem}.labels.zarr"


def test_a_new_store_never_takes_a_name_that_is_used(tmp_path: Path) -> None:
    first = default_store("clip.mp4", tmp_path)
    assert first == tmp_path / "clip.labels.zarr"
    first.touch()
    assert default_store("clip.mp4", tmp_path) == tmp_path / "clip.labels-2.zarr"
    assert default_store("", tmp_path) == tmp_path / "video.labels.zarr"
