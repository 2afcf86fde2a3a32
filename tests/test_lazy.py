"""Modules that are imported late."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from napari_samexp._lazy import import_beside_window


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that notes how often threads take turns while it is imported."""
    (tmp_path / "imported_late.py").write_text("import sys\ninterval = sys.getswitchinterval()\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "imported_late"
    sys.modules.pop("imported_late", None)


def test_threads_take_turns_more_often_during_an_import_only(module: str) -> None:
    before = sys.getswitchinterval()
    import_beside_window(module)
    assert sys.modules[module].interval < before / 5
    assert sys.getswitchinterval() == before


def test_a_failing_import_leaves_no_trace() -> None:
    before = sys.getswitchinterval()
    with pytest.raises(ImportError):
        import_beside_window("no_such_module_anywhere")
    assert sys.getswitchinterval() == before
    import_beside_window("json")
