"""A short run of the fuzzer; `make fuzz MINUTES=n` runs longer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_damaged_input_is_a_result_or_an_error_of_ours():
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "1"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
