"""The way of the actors' ticks to the progress line, over a real Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sessions() -> dict[str, Any]:
    """What `watching` saw."""
    # Ray's own warnings would be errors here, and what it leaves in a process would reach other tests.
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.kinds.watching"],
        env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_counts_reach_the_progress_line(sessions: dict[str, Any]) -> None:
    seen = sessions["counted"]
    last = seen["shown"].splitlines()[-1]
    for part in ("scoring", "60/100 rows", "3 failed", "2 workers"):
        assert part in last
    assert seen["model"] == {"path": "m"}


def test_a_killed_counter_ends_nothing_and_its_last_counts_stay(sessions: dict[str, Any]) -> None:
    seen = sessions["killed"]
    last = seen["shown"].splitlines()[-1]
    for part in ("scoring", "50/100 rows", "1 failed", "1 worker"):
        assert part in last
    assert seen["model"] is None
