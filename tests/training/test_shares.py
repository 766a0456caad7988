"""Shares of a global batch: each sample in one, none empty, the work as even as it can be."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfray.training.shares import even_shares
from hfray.types import Array


def work(lengths: Array, shares: list[Array]) -> list[int]:
    return [len(places) * int(lengths[places].max(0).sum()) for places in shares]


def cut(lengths: Array, ends: tuple[int, ...]) -> list[Array]:
    return np.split(np.argsort(-lengths.sum(1), kind="stable"), ends)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_each_sample_is_in_one_share(data: st.DataObject) -> None:
    num_shares = data.draw(st.integers(1, 6))
    row = st.lists(st.integers(0, 60), min_size=2, max_size=2)
    lengths = np.array(data.draw(st.lists(row, min_size=num_shares, max_size=40)), np.int64)
    shares = even_shares(lengths, num_shares)
    assert len(shares) == num_shares
    assert all(len(places) for places in shares)
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(lengths)))
    even = cut(lengths, tuple(number * len(lengths) // num_shares for number in range(1, num_shares)))
    assert max(work(lengths, shares)) <= max(work(lengths, even))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_other_cut_by_length_has_a_much_smaller_largest_share(data: st.DataObject) -> None:
    num_shares = data.draw(st.integers(2, 4))
    drawn = data.draw(st.lists(st.integers(1, 500), min_size=num_shares, max_size=10))
    lengths = np.array(drawn, np.int64)[:, None]
    best = min(max(work(lengths, cut(lengths, ends))) for ends in combinations(range(1, len(drawn)), num_shares - 1))
    assert max(work(lengths, even_shares(lengths, num_shares))) <= 1.02 * best + 1


def test_equal_lengths_stay_in_order_and_are_cut_evenly() -> None:
    shares = even_shares(np.full((12, 1), 7), 3)
    assert [each.tolist() for each in shares] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_one_long_sample_stands_alone() -> None:
    shares = even_shares(np.array([[3], [90], [4], [5], [3], [4]]), 2)
    assert [sorted(each.tolist()) for each in shares] == [[1], [0, 2, 3, 4, 5]]


@pytest.mark.parametrize("num_shares", [2, 8])
def test_the_shares_of_lengths_as_texts_have_them_are_nearly_even(num_shares: int) -> None:
    lengths = np.random.default_rng(0).lognormal(2.7, 0.6, (256, 1)).astype(np.int64) + 3
    works = work(lengths, even_shares(lengths, num_shares))
    assert max(works) < 1.1 * np.mean(works)
