"""Budgets shrink at once and grow with patience."""

from __future__ import annotations

from hfray.engines.budget import PATIENCE, Budget


def work(budget: Budget, times: int) -> int:
    for _ in range(times):
        budget.worked()
    return budget.now


def test_it_halves_what_was_too_much_and_comes_back() -> None:
    budget = Budget(1000)
    budget.ran_out(600)
    assert budget.now == 300
    assert work(budget, PATIENCE - 1) == 300
    assert work(budget, 1) == 600
    assert work(budget, PATIENCE) == 1000, "not over what was asked for"
    assert work(budget, 5 * PATIENCE) == 1000
    budget.ran_out(1)
    assert budget.now == 1


def test_growing_that_failed_is_tried_half_as_often() -> None:
    budget = Budget(64)
    budget.ran_out(64)
    budget.ran_out(32)
    assert work(budget, PATIENCE) == 32, "halving twice at once is one failure"
    budget.ran_out(32)
    assert work(budget, 2 * PATIENCE - 1) == 16
    assert work(budget, 1) == 32
    budget.ran_out(32)
    assert work(budget, 4 * PATIENCE - 1) == 16
    assert work(budget, 1) == 32
