"""The order of samples: every example once an epoch, the same global batches for any number of ranks, from anywhere."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfray.training.order import Draw, MicroBatches, SampleOrder, evaluation_share
from hfray.types import Array

WORLD_SIZES = (1, 2, 3, 4, 8)
GLOBAL_BATCH = 48
few = settings(max_examples=20, deadline=None)


def steps(
    order: SampleOrder, world_size: int, stop: int, position: int = 0, micro: int = 2, global_batch: int = GLOBAL_BATCH
) -> list[list[Draw]]:
    """The samples of each optimizer step, in the order of the stream, put together from what the ranks draw."""
    accumulation = global_batch // (world_size * micro)
    ranks = [
        list(MicroBatches(order, micro, accumulation, world_size, rank, stop, position)) for rank in range(world_size)
    ]
    assert len({len(each) for each in ranks}) == 1
    micro_steps = [list(chain.from_iterable(each)) for each in zip(*ranks, strict=True)]
    return [
        list(chain.from_iterable(micro_steps[first : first + accumulation]))
        for first in range(0, len(micro_steps), accumulation)
    ]


@pytest.mark.slow
@few
@given(num_examples=st.integers(20, 300), seed=st.integers(0, 99), num_steps=st.integers(0, 6))
def test_steps_have_the_same_samples_for_any_number_of_ranks(num_examples: int, seed: int, num_steps: int) -> None:
    order = SampleOrder(num_examples, seed)
    stop = num_steps * GLOBAL_BATCH
    alone = steps(order, 1, stop)
    assert len(alone) == num_steps
    assert all(len(each) == GLOBAL_BATCH for each in alone)
    for world_size in WORLD_SIZES:
        assert steps(order, world_size, stop) == alone
    assert steps(order, 2, stop, micro=12) == alone


@pytest.mark.slow
@few
@given(st.data())
def test_a_run_goes_on_at_any_step_with_any_number_of_ranks(data: st.DataObject) -> None:
    order = SampleOrder(data.draw(st.integers(20, 300)), data.draw(st.integers(0, 99)))
    num_steps = data.draw(st.integers(1, 6))
    killed = data.draw(st.integers(0, num_steps))
    before, after = data.draw(st.sampled_from(WORLD_SIZES)), data.draw(st.sampled_from(WORLD_SIZES))
    stop, position = num_steps * GLOBAL_BATCH, killed * GLOBAL_BATCH
    first = steps(order, before, position)
    assert first + steps(order, after, stop, position) == steps(order, 1, stop)


@pytest.mark.slow
@few
@given(num_examples=st.integers(1, 300), seed=st.integers(0, 99), shuffle=st.booleans())
def test_each_epoch_has_every_example_once(num_examples: int, seed: int, shuffle: bool) -> None:
    order = SampleOrder(num_examples, seed, shuffle)
    stop = -(-3 * num_examples // GLOBAL_BATCH) * GLOBAL_BATCH
    draws = list(chain.from_iterable(steps(order, 2, stop)))
    for epoch in range(3):
        mine = [draw.number for draw in draws if draw.epoch == epoch]
        assert sorted(mine) == list(range(num_examples))
        assert shuffle or mine == sorted(mine)


@few
@given(st.integers(20, 1000), st.integers(0, 2000), st.integers(0, 2000))
def test_a_part_of_the_stream_is_that_part(num_examples: int, one: int, other: int) -> None:
    start, stop = sorted((one, other))
    order = SampleOrder(num_examples, 3)
    whole = np.stack(order.draws(0, stop))
    assert np.array_equal(np.stack(order.draws(start, stop)), whole[:, start:])


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    order = SampleOrder(100, 1)
    expected = steps(order, 3, 20 * GLOBAL_BATCH)
    monkeypatch.setattr("hfray.training.order._BLOCK_SAMPLES", 50)
    assert steps(order, 3, 20 * GLOBAL_BATCH) == expected


def test_epochs_and_seeds_differ() -> None:
    numbers = SampleOrder(1000, 0).draws(0, 2000)[1]
    assert np.mean(numbers[:1000] == numbers[1000:]) < 0.02
    assert np.mean(numbers[:1000] == SampleOrder(1000, 1).draws(0, 1000)[1]) < 0.02


def test_the_order_that_checkpoints_depend_on() -> None:
    """A checkpoint keeps a position in this stream: never change these numbers."""
    epochs, numbers = SampleOrder(7, 5).draws(3, 17)
    assert epochs.tolist() == PINNED_EPOCHS
    assert numbers.tolist() == PINNED_NUMBERS


PINNED_EPOCHS = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2]
PINNED_NUMBERS = [0, 4, 5, 2, 5, 4, 1, 6, 3, 0, 2, 0, 1, 4]


def lengths_of(numbers: Array) -> Array:
    return (numbers * 7 % 31 + 1)[:, None]


@pytest.mark.parametrize("world_size", [2, 4])
def test_micro_batches_by_length_are_those_of_one_rank_dealt_out(world_size: int) -> None:
    order = SampleOrder(100, 1)
    alone = list(MicroBatches(order, 6, 8, 1, 0, 3 * GLOBAL_BATCH, lengths=lengths_of))
    ranks = [
        list(MicroBatches(order, 6, 8 // world_size, world_size, rank, 3 * GLOBAL_BATCH, lengths=lengths_of))
        for rank in range(world_size)
    ]
    assert list(chain.from_iterable(zip(*ranks, strict=True))) == alone
    resumed = MicroBatches(order, 6, 8, 1, 0, 3 * GLOBAL_BATCH, GLOBAL_BATCH, lengths=lengths_of)
    assert list(resumed) == alone[8:]
    for step, expected in enumerate(steps(order, 1, 3 * GLOBAL_BATCH)):
        assert sorted(chain.from_iterable(alone[8 * step : 8 * step + 8])) == sorted(expected)
    assert len({len(each) for each in alone}) > 1


def test_what_is_learned_at_once_stays_in_the_order_of_the_stream() -> None:
    order = SampleOrder(100, 1)
    assert list(MicroBatches(order, 48, 1, 1, 0, 96, lengths=lengths_of)) == list(MicroBatches(order, 48, 1, 1, 0, 96))


def test_a_sampler_starts_again_where_it_was_told_to() -> None:
    batches = MicroBatches(SampleOrder(20), 2, 3, 2, 1, 48, 12)
    assert len(batches) == len(list(batches)) == 9
    assert list(batches) == list(batches)
    assert batches.global_batch_size == 12
    assert list(MicroBatches(SampleOrder(20), 2, 3, 2, 1, 12, 12)) == []


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="no examples"):
        SampleOrder(0)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        MicroBatches(SampleOrder(9), 1, 1, 2, 2, 4)
    with pytest.raises(ValueError, match="outside of the run"):
        MicroBatches(SampleOrder(9), 1, 1, 2, 0, 4, 6)
    with pytest.raises(ValueError, match="no whole number of global batches"):
        MicroBatches(SampleOrder(9), 2, 1, 2, 0, 10)


@given(st.integers(0, 50), st.integers(1, 12))
def test_evaluation_sees_every_example_once(num_examples: int, world_size: int) -> None:
    shares = [evaluation_share(num_examples, world_size, rank) for rank in range(world_size)]
    assert list(chain.from_iterable(shares)) == list(range(num_examples))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
