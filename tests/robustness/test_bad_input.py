"""A sample of the generated bad input; the whole is `benchmarks/bad_input.py`, which takes any seed and count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bad_input.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is a fork, which Windows does not have")
def test_bad_input_is_refused_with_a_sentence_or_works(tmp_path: Path) -> None:
    """Four cases of each kind; what is wrong is printed with the command that shows it again."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--cases", "124", "--seed", "2026", "--keep", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "124 cases with seed 2026" in done.stdout
