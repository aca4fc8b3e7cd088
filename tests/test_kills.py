"""Verbs that are killed leave nothing half-written under a final name, and the next run clears the rest away."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.kill_verbs import VERBS

_NEEDS = {"build": "tensorrt_rtx_bindings", "deploy": "tritonclient"}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_any_moment_a_verb_leaves_nothing_half_written(tmp_path: Path, verb: str):
    if find_spec(_NEEDS.get(verb, "numpy")) is None:
        pytest.skip(f"{_NEEDS[verb]} is not installed")
    command = [sys.executable, "-m", "tests.kill_verbs", str(tmp_path), "10", verb]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["killed"] == 10
