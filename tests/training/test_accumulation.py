"""Sharing a global batch, and what is said where it cannot be shared."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfray.errors import SpecError
from hfray.training.accumulation import accumulation, micro_batch_sizes, world_sizes

SMALL = st.integers(1, 64)


def test_accumulation_follows() -> None:
    assert accumulation(32, 16, 2) == 1
    assert accumulation(32, 4, 2) == 4
    assert accumulation(32, 1, 1) == 32


@given(SMALL, SMALL, SMALL)
def test_it_is_exact_or_the_remedies_are(global_batch: int, micro: int, world: int) -> None:
    try:
        assert accumulation(global_batch, micro, world) * micro * world == global_batch
    except SpecError as error:
        text = str(error)
        globals_, *others = re.split(r", or ", text.partition("use global_batch_size ")[2])
        for each in globals_.split(" or "):
            accumulation(int(each), micro, world)
        for other in others:
            for number in map(int, re.findall(r"\d+", other)):
                if "workers" in other:
                    accumulation(global_batch, micro, number)
                else:
                    accumulation(global_batch, number, world)


def test_a_misfit_names_what_would_do() -> None:
    with pytest.raises(SpecError) as caught:
        accumulation(32, 16, 3)
    assert str(caught.value) == (
        "global_batch_size: 32 is no multiple of 48, what 3 workers with trainer.per_device_train_batch_size 16 take "
        "at once; use global_batch_size 48, or 1 or 2 workers"
    )
    with pytest.raises(
        SpecError, match=r"use global_batch_size 32 or 64, or per_device_train_batch_size 2, 4, 5 or 10$"
    ):
        accumulation(40, 16, 2)
    with pytest.raises(SpecError, match=r"use global_batch_size 16, or per_device_train_batch_size 1, 2, 4 or 8$"):
        accumulation(8, 16, 1)


def test_what_an_elastic_run_may_take() -> None:
    assert world_sizes(32, 4, 2, 8) == (2, 4, 8)
    assert world_sizes(32, 16, 3, 8) == ()
    assert world_sizes(96, 4, 1, 100) == (1, 2, 3, 4, 6, 8, 12, 24)
    assert micro_batch_sizes(32, 2, 9) == (1, 2, 4, 8)
    assert micro_batch_sizes(32, 3, 9) == ()
