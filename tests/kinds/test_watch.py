"""The way of the actors' ticks to the progress line, over a real Ray."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kinds.apart import run_apart

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sessions() -> dict[str, Any]:
    """What `watching` saw."""
    return run_apart("watching")


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


def test_workers_that_cannot_start_end_the_wait(sessions: dict[str, Any]) -> None:
    assert sessions["stuck"] == "no room"
