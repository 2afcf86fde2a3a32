"""Small files that lie about sizes and counts, or name other files; the whole is `tests/fuzz/crafted.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT


@pytest.mark.skipif(
    not hasattr(os, "fork"), reason="each file is opened in a fork, which Windows does not have"
)
def test_no_small_file_takes_a_gigabyte_or_ten_seconds_or_opens_another(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.fuzz.crafted"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.count("\n") > 70
