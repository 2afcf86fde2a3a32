"""A session for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.session.harness import SessionHarness


@pytest.fixture
def session(tmp_path: Path) -> Iterator[SessionHarness]:
    session = SessionHarness(tmp_path / "home")
    yield session
    session.session.close()
    session.session.close()
    assert session.engine.closed
