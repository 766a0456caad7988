"""Tokens of a micro-batch, against a count by hand of what went into it."""

from __future__ import annotations

import numpy as np

from hfray.training.batches import Packed, Padding, Sequences, Targets, to_tensors
from hfray.training.counting import Counts, count_for
from hfray.training.tokens import Example


def example(number: int, **columns: list[int]) -> Example:
    return Example(number, {name: np.array(values) for name, values in columns.items()})


def test_padding_does_not_count() -> None:
    collator = Sequences(Padding())
    batch = to_tensors(collator([example(0, input_ids=[5, 6, 7]), example(1, input_ids=[5])]))
    assert count_for(collator)(batch) == Counts(4, 6, 10)


def test_an_encoder_decoder_has_two_sides() -> None:
    collator = Targets(Padding())
    rows = [example(0, input_ids=[5, 6, 7], labels=[8, 9]), example(1, input_ids=[5], labels=[8, 9, 1])]
    counts = count_for(collator)(to_tensors(collator(rows)))
    assert counts == Counts(9, 12, 10, 5, 13)
    assert (counts.mean_length, counts.mean_target_length) == (10 / 4, 13 / 5)


def test_of_packed_sequences_only_the_end_can_be_padding() -> None:
    rows = [
        example(0, input_ids=[5, 6, 7, 8], position_ids=[0, 1, 0, 1], labels=[-100, 6, -100, 8]),
        example(1, input_ids=[5, 6, 0, 0], position_ids=[0, 1, 0, 1], labels=[-100, 6, -100, -100]),
        example(2, input_ids=[0, 0, 0, 0], position_ids=[0, 1, 2, 3], labels=[-100] * 4),
    ]
    collator = Packed()
    assert count_for(collator)(to_tensors(collator(rows))) == Counts(6, 12, 24)


def test_nothing_has_no_length() -> None:
    assert (Counts().mean_length, Counts().mean_target_length) == (0.0, 0.0)
