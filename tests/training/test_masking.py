"""Masked tokens: the shares of the paper, the same for the same sample, others in another epoch."""

from __future__ import annotations

import numpy as np
import pytest

from hfray.training.masking import Masking

MASKING = Masking(mask_token_id=4, vocab_size=1000, special_ids=(0, 2, 3, 4))


def test_shares_are_those_of_the_paper() -> None:
    ids = np.full(200_000, 500)
    seen, labels = MASKING.apply(ids, 0, 0)
    chosen = labels != -100
    assert np.mean(chosen) == pytest.approx(0.15, abs=0.005)
    assert np.all(labels[chosen] == 500)
    assert np.all(seen[~chosen] == 500)
    assert np.mean(seen[chosen] == 4) == pytest.approx(0.8, abs=0.01)
    assert np.mean(seen[chosen] == 500) == pytest.approx(0.1, abs=0.01)
    others = seen[chosen & (seen != 4) & (seen != 500)]
    assert others.min() < 10
    assert 990 < others.max() < 1000


def test_the_same_sample_is_masked_alike() -> None:
    ids = np.arange(10, 300)
    first = MASKING.apply(ids, 1, 7)
    assert np.array_equal(first, MASKING.apply(ids.astype(np.int32), 1, 7))
    for other in (
        MASKING.apply(ids, 2, 7),
        MASKING.apply(ids, 1, 8),
        Masking(4, 1000, (0, 2, 3, 4), seed=1).apply(ids, 1, 7),
    ):
        assert not np.array_equal(first[1], other[1])


def test_special_tokens_stay_and_one_token_is_always_chosen() -> None:
    ids = np.array([2, 50, 3, 0, 0])
    for number in range(50):
        seen, labels = MASKING.apply(ids, 0, number)
        assert labels.tolist() == [-100, 50, -100, -100, -100]
        assert seen[[0, 2, 3, 4]].tolist() == [2, 3, 0, 0]
    seen, labels = MASKING.apply(np.array([2, 3]), 0, 0)
    assert seen.tolist() == [2, 3]
    assert labels.tolist() == [-100, -100]


def test_the_masks_that_a_resumed_run_depends_on() -> None:
    """Never change these numbers."""
    seen, labels = Masking(4, 100, (2, 3), probability=0.3, seed=5).apply(np.arange(20, 40), 3, 11)
    assert seen.tolist() == SEEN
    assert labels.tolist() == LABELS


SEEN = [4, 21, 4, 23, 24, 25, 26, 81, 4, 29, 30, 31, 32, 4, 34, 4, 36, 37, 38, 39]
LABELS = [20, -100, 22, -100, -100, -100, -100, 27, 28, -100, -100, -100, -100, 33, -100, 35, -100, -100, -100, -100]


def test_a_probability_is_one() -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        Masking(4, 100, probability=1.5)
