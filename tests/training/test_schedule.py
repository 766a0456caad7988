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


def rates(schedule: Schedule) -> list[float]:
    """Of the steps of a run, as an optimizer has them."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=schedule.learning_rate)
    scheduler = schedule.make(optimizer)
    found = []
    for _ in range(schedule.length.num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(("name", "options"), SCHEDULES)
def test_rates_follow_samples(name: str, options: dict[str, Any]) -> None:
    """Half the batch is twice the steps, and the same rates for the same samples."""
    lengths = (RunLength.of(960, batch, 2) for batch in (32, 16))
    few = rates(Schedule(name, 1e-3, next(lengths), warmup=0.1, options=options))
    halved = {key: 2 * value if key == "num_decay_steps" else value for key, value in options.items()}
    many = rates(Schedule(name, 1e-3, next(lengths), warmup=0.1, options=halved))
    assert len(set(few)) > 1 or name == "constant"
    if name != "inverse_sqrt":  # which falls by steps since the warm-up, whatever the length of a run
        for step in range(len(few)):
            near = few[max(0, step - 1) : step + 2]
            assert min(near) * (1 - 1e-9) <= many[2 * step] <= max(near) * (1 + 1e-9)


def test_warm_up_is_that_of_the_arguments() -> None:
    for warmup in (0, 0.05, 0.29, 7, 7.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arguments = TrainingArguments(output_dir="unused", warmup_steps=warmup, use_cpu=True, report_to=[])
        schedule = Schedule("linear", 1.0, LENGTH, warmup)
        assert schedule.warmup_steps == arguments.get_warmup_steps(LENGTH.num_steps)
        assert rates(schedule).index(1.0) == schedule.warmup_steps


def test_mistakes() -> None:
    with pytest.raises(SpecError, match=r"unknown schedule 'cosin', did you mean cosine?"):
        rates(Schedule("cosin", 1.0, LENGTH))
    with pytest.raises(SpecError, match=r"lr_scheduler_kwargs: linear does not take them: .*cycles"):
        rates(Schedule("linear", 1.0, LENGTH, options={"cycles": 2}))
