from __future__ import annotations

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfray.data.permutation import Permutation, fraction_of, stable_hash

SIZES = [1, 2, 3, 5, 7, 31, 63, 64, 65, 101, 256, 257, 1023, 1024, 1025, 4096, 4097, 7919, 65535, 65536, 65537]


@pytest.mark.parametrize("size", [*SIZES, 104_729, 2**20, 2**20 + 1])
def test_every_number_comes_once_and_goes_back(size: int) -> None:
    permutation = Permutation(size, seed=3)
    moved = permutation(np.arange(size))
    assert moved.dtype == np.int64
    assert np.array_equal(np.bincount(moved, minlength=size), np.ones(size, np.int64))
    assert np.array_equal(permutation.inverse(moved), np.arange(size))
    if size > 100:
        assert np.mean(moved == np.arange(size)) < 0.05


@settings(deadline=None)
@given(st.integers(1, 2**62), st.integers(-(2**70), 2**70), st.data())
def test_values_are_moved_within_the_range_and_back(size: int, seed: int, data: st.DataObject) -> None:
    permutation = Permutation(size, seed)
    values = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), max_size=20))), np.int64)
    moved = permutation(values)
    assert all(0 <= value < size for value in moved.tolist())
    assert len(set(moved.tolist())) == len(values)
    assert np.array_equal(permutation.inverse(moved), values)


def test_values_need_not_come_in_one_piece() -> None:
    permutation = Permutation(200_003, seed=1)
    whole = permutation(np.arange(200_003))
    assert np.array_equal(np.concatenate([permutation(part) for part in np.array_split(np.arange(200_003), 7)]), whole)
    assert np.array_equal(permutation(np.arange(12).reshape(3, 4)), whole[:12].reshape(3, 4))
    assert permutation(np.array(5)) == whole[5]
    assert np.array_equal(pickle.loads(pickle.dumps(permutation))(np.arange(9)), whole[:9])  # noqa: S301


def test_nothing_can_be_permuted() -> None:
    assert Permutation(0, seed=0)(np.zeros(0, np.int64)).shape == (0,)
    with pytest.raises(ValueError, match="not in a permutation of 0 numbers"):
        Permutation(0, seed=0)(np.array([0]))


@pytest.mark.parametrize("value", [-1, 10, 2**62])
def test_a_value_outside_is_refused(value: int) -> None:
    for move in (Permutation(10, seed=0), Permutation(10, seed=0).inverse):
        with pytest.raises(ValueError, match="are not in a permutation of 10 numbers"):
            move(np.array([3, value]))


@pytest.mark.parametrize("size", [-1, 2**62 + 1])
def test_a_size_out_of_reach_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="the size must be 0 to"):
        Permutation(size, seed=0)


def test_the_values_that_written_tokens_depend_on() -> None:
    """A change here moves the rows of every output that was made before: never change these numbers."""

    def first(size: int, seed: int, purpose: str = "") -> list[int]:
        return list(Permutation(size, seed, purpose)(np.arange(10)).tolist())

    assert first(10, 0) == [9, 4, 6, 0, 8, 1, 3, 2, 7, 5]
    assert first(10, 1) == [1, 8, 6, 3, 2, 5, 0, 4, 7, 9]
    assert first(10, 0, "sample") == [7, 1, 6, 5, 4, 9, 8, 0, 3, 2]
    assert first(1000, 7) == [433, 333, 763, 904, 436, 11, 591, 458, 691, 520]
    assert first(2**40, 2**63) == [
        266682798959, 890563031450, 68435218545, 608838311065, 782603967021,
        833286867927, 16184483003, 318930579490, 117262721734, 246462811071,
    ]  # fmt: skip


def test_seeds_and_purposes_are_independent() -> None:
    size = 100_000
    numbers = np.arange(size)
    base = Permutation(size, 0)(numbers)
    for other in (Permutation(size, 1), Permutation(size, 2**64), Permutation(size, 0, "sample")):
        moved = other(numbers)
        assert np.sum(moved == base) < 10  # 1 is expected
        assert abs(np.corrcoef(moved, base)[0, 1]) < 0.015  # 0.003 is the standard deviation
        # The rows that one seed puts first are not those that the other puts first.
        assert abs(np.mean(base[moved < size // 10] < size // 10) - 0.1) < 0.015


def chi_square_z(counts: np.ndarray) -> float:
    """How many standard deviations the counts of equally likely cells are from what chance gives."""
    expected = counts.sum() / counts.size
    statistic = float(((counts - expected) ** 2 / expected).sum())
    degrees = counts.size - 1
    return (statistic - degrees) / (2 * degrees) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("size", [1000, 1024, 1025])
def test_every_place_is_as_likely_as_any_other(size: int) -> None:
    counts = np.zeros((10, 10), np.int64)
    for seed in range(400):
        moved = Permutation(size, seed)(np.arange(size))
        np.add.at(counts, (np.arange(size) * 10 // size, moved * 10 // size), 1)
    assert abs(chi_square_z(counts)) < 5


@pytest.mark.slow
def test_every_permutation_of_a_few_is_as_likely_as_any_other() -> None:
    """A Feistel network alone makes even permutations only, and few of them in a small range."""
    found = Counter(tuple(Permutation(4, seed)(np.arange(4)).tolist()) for seed in range(1200))
    counts = np.array([found[order] for order in itertools.permutations(range(4))])
    assert counts.sum() == 1200
    assert abs(chi_square_z(counts)) < 5


@pytest.mark.parametrize("size", [10_007, 65_536, 100_000])
def test_neighbours_part(size: int) -> None:
    moved = Permutation(size, seed=5)(np.arange(size)).astype(float)
    for lag in (1, 2, 3, 64, 256):
        assert abs(np.corrcoef(moved[:-lag], moved[lag:])[0, 1]) < 5 / size**0.5
    blocks = np.bincount((np.arange(size) * 32 // size) * 32 + (moved * 32 // size).astype(int), minlength=1024)
    assert chi_square_z(blocks) < 5
    rises = np.mean(np.diff(moved) > 0)
    assert abs(rises - 0.5) < 5 * (1 / 12 / size) ** 0.5


def test_the_hashes_that_splits_and_duplicates_depend_on() -> None:
    """A change here puts rows into other splits than before: never change these numbers."""
    assert stable_hash(b"row") == 0xD4C3CE07715241ECB72769553039BB92
    assert stable_hash([b"ab", b"c"]) == 0x4826ED043AB3CDEC576D8541FA5D5A80
    assert stable_hash([b"a", b"bc"]) == 0xF14ABC19C330E936BB9C8506D69BAC9B
    assert stable_hash([b"ab", b"c"], b"seed 0") == 0x9C2031D96AD83494C906B1A8D8458967
    assert stable_hash([]) == 0xCAE66941D9EFBD404E4D88758EA67670
    assert fraction_of(stable_hash(b"row")) == 0.8311127441568908


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_parts_are_told_apart(one: list[bytes], other: list[bytes]) -> None:
    assert (stable_hash(one) == stable_hash(other)) is (one == other)
    assert stable_hash(b"".join(one)) == stable_hash([b"".join(one)])


def test_fractions_are_even_and_never_one() -> None:
    assert fraction_of(0) == 0
    assert fraction_of(2**128 - 1) == 1 - 2.0**-53
    fractions = np.array([fraction_of(stable_hash(str(i).encode())) for i in range(20_000)])
    assert abs(chi_square_z(np.histogram(fractions, 50, (0, 1))[0])) < 5
