"""A hundred and fifty random actions in a real window; `tests/fuzz/monkey.py` does thousands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="needs a screen that nobody sits at")
def test_random_actions_in_a_real_window_break_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.monkey", "--actions", "150", "--each", "150", "--seed", "7"]
    run = subprocess.run(
        [*command, "--keep", str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0 and lines, run.stdout + run.stderr
    assert lines[-1]["actions"] == 150 and lines[-1]["faults"] == 0
