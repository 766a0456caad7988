"""Ranks with unequal work over one divided model: nobody waits for ever, and the answers are those of a rank alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.lockstep_job import run_broken, run_failing, run_unequal
from tests.training.process_groups import end_group, run_group


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_unequal_numbers_of_forward_passes(tmp_path: Path, method: str) -> None:
    (alone,) = run_group(run_unequal, 1, method, tmp_path / "alone")
    idle, busy = run_group(run_unequal, 2, method, tmp_path / "two")
    assert (len(idle), len(busy)) == (1, 4)
    assert busy == pytest.approx(alone, abs=1e-4)
    assert idle[-1] == busy[-1]


@pytest.mark.slow
@pytest.mark.parametrize("passes", [[0, 3], [3, 0]])
def test_a_rank_that_fails_keeps_answering_and_all_are_told(tmp_path: Path, passes: list[int]) -> None:
    one, other = run_group(run_failing, 2, passes, tmp_path / "two")
    assert one[0] == other[0] == "part-3 is damaged"
    assert one[1] == other[1]


@pytest.mark.slow
@pytest.mark.parametrize("caught", [False, True])
def test_a_rank_that_fails_within_a_pass_ends_the_group(tmp_path: Path, caught: bool) -> None:
    folder = tmp_path / "two"
    assert end_group(run_broken, 2, caught, folder) == [1, 1]
    told, other = ((folder / f"error-{rank}").read_text().splitlines()[-1] for rank in (0, 1))
    assert "OutOfStep: a forward pass failed" in told
    assert "on rank 0" in told
    assert ("MemoryError: no memory" in told) is not caught
    assert "OutOfStep" not in other
