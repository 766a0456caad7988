"""Runs a module of these tests in a process of its own, where Ray may warn and leave what it likes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def run_apart(module: str) -> dict[str, Any]:
    """The JSON in the last line that `python -m tests.kinds.MODULE` prints."""
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", f"tests.kinds.{module}"],
        env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
