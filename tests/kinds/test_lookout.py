"""A thread that looks while the main thread waits: the first problem interrupts it, and the last look is never lost."""

from __future__ import annotations

import time

import pytest

from hfray.errors import EngineError, HfrayError
from hfray.kinds.lookout import POLL_S, Lookout


def test_a_problem_interrupts_the_main_thread() -> None:
    looks = 0

    def look() -> HfrayError | None:
        nonlocal looks
        looks += 1
        return EngineError("no room") if looks == 2 else None

    lookout = Lookout(look)
    try:
        with pytest.raises(KeyboardInterrupt):
            time.sleep(60)
        assert str(lookout.problem) == "no room"
        time.sleep(2 * POLL_S)
        assert looks == 2  # once is enough
    finally:
        lookout.close()
    assert looks == 3


def test_without_a_problem_it_looks_once_more_at_the_end() -> None:
    looks: list[None] = []
    lookout = Lookout(lambda: looks.append(None))
    lookout.close()
    assert looks
    assert lookout.problem is None
