"""The one switch between the fast paths and the reference."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from napari_samexp.sam import fast


def test_the_reference_is_taken_within_its_block_alone() -> None:
    x = torch.zeros(1)
    with torch.inference_mode():
        assert fast.is_enabled() and fast.on_cpu(x)
        with pytest.raises(ValueError), fast.reference():
            assert not fast.is_enabled() and not fast.on_cpu(x)
            with fast.reference(False):
                assert fast.is_enabled()
            raise ValueError
        assert fast.is_enabled() and fast.on_cpu(x)


def test_gradients_and_other_devices_have_no_fast_path_of_the_cpu() -> None:
    with torch.enable_grad():
        assert not fast.on_cpu(torch.zeros(1))
    with torch.no_grad():
        assert not fast.on_cpu(torch.zeros(1, device="meta"))


@pytest.mark.parametrize(("value", "enabled"), [("1", False), ("0", True), ("", True)])
def test_an_environment_variable_turns_them_off(value: str, enabled: bool) -> None:
    script = "from napari_samexp.sam import fast; print(fast.is_enabled())"
    environment = os.environ | {fast.REFERENCE_VARIABLE: value}
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == str(enabled)
