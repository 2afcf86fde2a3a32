"""A sample of the generated bad input; `python -m tests.fuzz.bad_input` takes any seed and count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is a fork, which Windows does not have")
def test_bad_input_is_refused_with_a_sentence_or_works(tmp_path: Path) -> None:
    """Four cases of each kind; what is wrong is printed with the command that shows it again."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.bad_input",
        "--cases",
        "124",
        "--seed",
        "2026",
        "--keep",
        str(tmp_path),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "124 cases with seed 2026" in done.stdout
