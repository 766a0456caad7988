"""Who runs in a step, by age, budget and room; no model."""

from __future__ import annotations

from typing import Any

from hfray.engines.continuous.cache import BlockCache
from hfray.engines.continuous.scheduler import Scheduler, Slice
from hfray.engines.continuous.sequence import Sequence
from hfray.types import GenerationParams

BLOCK = 4


class Nobody:
    cancelled = False

    def token(self, token: Any) -> None: ...
    def done(self, output: Any) -> None: ...
    def fail(self, error: Any) -> None: ...


def sequence_of(length: int, arrival: int, *, first: int = 0, salt: bytes = b"") -> Sequence:
    return Sequence(GenerationParams(), list(range(first, first + length)), Nobody(), arrival, salt)


def scheduler_of(num_blocks: int = 64, *, max_step_tokens: int = 16, max_running: int = 8) -> Scheduler:
    return Scheduler(BlockCache(num_blocks, BLOCK), max_step_tokens=max_step_tokens, max_running=max_running)


def run_step(scheduler: Scheduler) -> list[tuple[int, int, int]]:
    """(arrival, start, count) of each slice; every drawn token is 7."""
    slices: list[Slice] = scheduler.schedule()
    draws = [each.sequence for each in slices if each.draws]
    scheduler.advance(slices)
    for sequence in draws:
        sequence.append(7)
    return [(each.sequence.arrival, each.start, each.count) for each in slices]


def test_decodes_go_first_and_prompts_fill_the_rest_in_pieces() -> None:
    scheduler = scheduler_of()
    scheduler.add(sequence_of(5, 1))
    scheduler.add(sequence_of(30, 2, first=100))
    assert run_step(scheduler) == [(1, 0, 5), (2, 0, 11)]
    assert run_step(scheduler) == [(1, 5, 1), (2, 11, 15)]
    scheduler.add(sequence_of(3, 3, first=200))
    assert run_step(scheduler) == [(1, 6, 1), (2, 26, 4), (3, 0, 3)]
    assert run_step(scheduler) == [(1, 7, 1), (2, 30, 1), (3, 3, 1)]


def test_no_more_run_than_may() -> None:
    scheduler = scheduler_of(max_running=2)
    for arrival in range(3):
        scheduler.add(sequence_of(2, arrival, first=10 * arrival))
    assert [arrival for arrival, _, _ in run_step(scheduler)] == [0, 1]
    scheduler.remove(scheduler.running[0])
    assert [arrival for arrival, _, _ in run_step(scheduler)] == [1, 2]


def test_the_youngest_gives_way_and_computes_its_tokens_again() -> None:
    scheduler = scheduler_of(num_blocks=4)
    scheduler.add(sequence_of(4, 1))
    scheduler.add(sequence_of(2, 2, first=100))
    assert run_step(scheduler) == [(1, 0, 4), (2, 0, 2)]
    for _ in range(8):
        run_step(scheduler)
    assert scheduler.preemptions == 1
    assert [each.arrival for each in scheduler.running] == [1]
    (young,) = scheduler.waiting
    assert young.blocks == []
    assert young.new
    scheduler.remove(scheduler.running[0])
    assert run_step(scheduler) == [(2, 4, 3)]  # its first block was still there
    assert len(young.tokens) == 8


def test_equal_prompts_share_blocks_within_a_step_and_later_but_not_across_salts() -> None:
    scheduler = scheduler_of(max_step_tokens=64)
    scheduler.add(sequence_of(10, 1))
    scheduler.add(sequence_of(10, 2))
    scheduler.add(sequence_of(10, 3, salt=b"other"))
    assert run_step(scheduler) == [(1, 0, 10), (2, 8, 2), (3, 0, 10)]
    for sequence in list(scheduler.running):
        scheduler.remove(sequence)
    scheduler.add(sequence_of(8, 4))
    assert run_step(scheduler) == [(4, 4, 4)]  # the last token is computed, and its block with it
    assert scheduler.shared_tokens == 12


def test_a_failed_step_is_undone_and_its_suspects_run_alone() -> None:
    scheduler = scheduler_of()
    for arrival in range(3):
        scheduler.add(sequence_of(6, arrival, first=10 * arrival))
    slices = scheduler.schedule()
    scheduler.undo(slices)
    assert scheduler._cache.num_free == 64
    for sequence in scheduler.waiting:
        sequence.suspect = True
    seen = []
    for _ in range(3):
        ((arrival, start, count),) = run_step(scheduler)
        assert (start, count) == (0, 6)
        seen.append(arrival)
        scheduler.running[-1].suspect = False
    assert seen == [0, 1, 2]
    assert [arrival for arrival, _, _ in run_step(scheduler)] == [0, 1, 2]


def test_one_too_large_for_the_whole_cache_is_named() -> None:
    scheduler = scheduler_of(num_blocks=2)
    scheduler.add(sequence_of(9, 1))
    assert scheduler.schedule() == []
    stuck = scheduler.stuck()
    assert stuck is not None
    assert stuck.arrival == 1
    scheduler.remove(stuck)
    scheduler.add(sequence_of(8, 2))
    assert run_step(scheduler) == [(2, 0, 8)]
    assert scheduler.schedule() == []
    assert scheduler.stuck() is scheduler.running[0]


def test_a_prompt_without_room_goes_on_as_far_as_it_can_and_keeps_what_it_has() -> None:
    scheduler = scheduler_of(num_blocks=5, max_step_tokens=8)
    scheduler.add(sequence_of(16, 1))
    scheduler.add(sequence_of(3, 2, first=100))
    assert run_step(scheduler) == [(1, 0, 8)]
    young = scheduler.waiting.popleft()
    scheduler.running.append(young)  # as if there had been more room when it came
    young.blocks = [scheduler._cache.allocate(), scheduler._cache.allocate()]
    young.num_cached = 2
    assert run_step(scheduler) == [(2, 2, 1), (1, 8, 4)]
    assert scheduler.preemptions == 0
    assert run_step(scheduler) == [(2, 3, 1)]
    scheduler.remove(young)
    assert run_step(scheduler) == [(1, 12, 4)]


def test_if_nobody_can_move_the_youngest_gives_way() -> None:
    scheduler = scheduler_of(num_blocks=3, max_step_tokens=8)
    scheduler.add(sequence_of(12, 1))
    assert run_step(scheduler) == [(1, 0, 8)]
    young = sequence_of(4, 2, first=100)
    scheduler.running.append(young)
    young.blocks = [scheduler._cache.allocate()]
    young.num_cached = 4
    young.append(7)
    assert run_step(scheduler) == [(1, 8, 4)]
    assert scheduler.preemptions == 1
    assert list(scheduler.waiting) == [young]
