"""The length of a run and its learning rates: those of Transformers, counted in samples."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainingArguments

from hfray.errors import SpecError
from hfray.training.order import SampleOrder
from hfray.training.schedule import RunLength, Schedule

LENGTH = RunLength.of(1000, 32, 2)


@given(st.integers(1, 500), st.integers(1, 64), st.integers(1, 5))
def test_every_example_is_learned_as_often_as_asked(num_examples: int, global_batch: int, epochs: int) -> None:
    length = RunLength.of(num_examples, global_batch, epochs)
    assert 0 <= length.stop - epochs * num_examples < global_batch
    assert length.epoch_of(length.stop) >= epochs
    ends = length.epoch_ends()
    assert ends[-1] == length.num_steps
    assert list(ends) == sorted(set(ends))
    assert 1 <= len(ends) <= length.stop // num_examples + 1
    drawn = SampleOrder(num_examples, shuffle=False).draws(0, ends[0] * global_batch)[1]
    assert set(drawn.tolist()) == set(range(num_examples))


def test_lengths() -> None:
    assert RunLength.of(1000, 32, 3).num_steps == 94
    assert RunLength.of(10, 1, 0.7).num_steps == 7  # 0.7 * 10 is a little more than 7 in floats
    assert RunLength.of(1000, 32, 3, max_steps=5).stop == 160
    assert RunLength.of(1000, 32, 3).epoch_ends() == (32, 63, 94)
    assert RunLength.of(10, 32, 9).epoch_ends() == (1, 2, 3)
    with pytest.raises(SpecError, match="no examples"):
        RunLength.of(0, 32, 1)
    with pytest.raises(SpecError, match="num_train_epochs: must be above 0"):
        RunLength.of(10, 32, 0)


SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("linear", {}),
    ("cosine", {}),
    ("cosine", {"num_cycles": 1.5}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("polynomial", {"lr_end": 1e-6, "power": 2.0}),
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("inverse_sqrt", {}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
    ("warmup_stable_decay", {"num_decay_steps": 20}),
]


@pytest.mark.parametrize(("name", "options"), SCHEDULES)
def test_rates_are_those_that_the_optimizer_has(name: str, options: dict[str, Any]) -> None:
    schedule = Schedule(name, 1e-3, LENGTH, warmup=0.1, options=options)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = schedule.make(optimizer)
    for step in range(LENGTH.num_steps):
        assert schedule.rate(step * 32) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_warm_up_is_that_of_the_arguments() -> None:
    for warmup in (0, 0.05, 0.29, 7, 7.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arguments = TrainingArguments(output_dir="unused", warmup_steps=warmup, use_cpu=True, report_to=[])
        schedule = Schedule("linear", 1.0, LENGTH, warmup)
        assert schedule.warmup_steps == arguments.get_warmup_steps(LENGTH.num_steps)
        assert schedule.warmup_samples == schedule.warmup_steps * 32
        assert schedule.rate(schedule.warmup_samples) == 1.0


def test_rates_follow_samples() -> None:
    half = Schedule("linear", 1.0, RunLength.of(1000, 16, 2)), Schedule("linear", 1.0, LENGTH)
    assert half[0].rate(320) == pytest.approx(half[1].rate(320), abs=1 / LENGTH.num_steps)
    assert half[1].rate(320) == half[1].rate(351) > half[1].rate(352)


def test_a_schedule_that_follows_a_metric_has_no_rates() -> None:
    schedule = Schedule("reduce_lr_on_plateau", 1.0, LENGTH)
    with pytest.raises(ValueError, match="no rate that is known"):
        schedule.rate(0)


def test_mistakes() -> None:
    with pytest.raises(SpecError, match=r"unknown schedule 'cosin', did you mean cosine?"):
        Schedule("cosin", 1.0, LENGTH).rate(0)
    with pytest.raises(SpecError, match=r"lr_scheduler_kwargs: linear does not take them: .*cycles"):
        Schedule("linear", 1.0, LENGTH, options={"cycles": 2}).rate(0)
