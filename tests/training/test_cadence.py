"""When a run logs, evaluates and saves, as Transformers' own arguments say it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hfray.errors import SpecError
from hfray.training.cadence import SETTLED, Cadence, Rhythm
from hfray.training.schedule import RunLength

LENGTH = RunLength.of(100, 8, 3.0)  # 38 steps, epochs end in steps 13, 25 and 38


def cadence(*, has_validation: bool = True, **trainer: Any) -> Cadence:
    return Cadence.of(trainer, LENGTH, has_validation=has_validation)


def steps(rhythm: Rhythm, length: RunLength = LENGTH) -> list[int]:
    return [step for step in range(1, length.num_steps + 1) if rhythm.at(step, length)]


def test_without_a_word_each_epoch_is_evaluated_and_saved() -> None:
    found = cadence()
    assert steps(found.evaluate) == steps(found.save) == list(LENGTH.epoch_ends()) == [13, 25, 38]
    assert found.log.every == "steps"
    assert not found.load_best


def test_without_validation_nothing_is_evaluated() -> None:
    found = cadence(has_validation=False, eval_on_start=True)
    assert not steps(found.evaluate)
    assert not found.evaluate_on_start


def test_checkpoints_of_a_long_epoch_are_not_an_epoch_apart() -> None:
    long = RunLength.of(9_600, 8, 2.0)
    for has_validation in (False, True):
        save = Cadence.of({}, long, has_validation=has_validation).save
        assert steps(save, long) == [500, 1000, 1200, 1500, 2000, 2400]
    assert steps(Cadence.of({"save_strategy": "epoch"}, long, has_validation=True).save, long) == [1200, 2400]


def test_steps_are_meant_where_only_their_number_is_said() -> None:
    found = cadence(eval_steps=10, save_steps=7, logging_steps=4)
    assert steps(found.evaluate) == [10, 20, 30]
    assert steps(found.save) == [7, 14, 21, 28, 35]
    assert steps(found.log)[:2] == [4, 8]


def test_below_one_a_number_of_steps_is_a_share_of_the_run() -> None:
    assert cadence(eval_strategy="steps", eval_steps=0.25).evaluate.steps == math.ceil(38 / 4)


def test_evaluations_as_often_as_logs_where_nothing_else_is_said() -> None:
    assert cadence(eval_strategy="steps", logging_steps=6).evaluate.steps == 6


def test_the_first_step_may_be_logged_and_the_first_evaluations_left_out() -> None:
    found = cadence(logging_steps=10, logging_first_step=True, eval_delay=1.5)
    assert steps(found.log) == [1, 10, 20, 30]
    assert steps(found.evaluate) == [25, 38]  # one and a half epochs are 18.75 steps
    assert steps(cadence(eval_steps=5, eval_delay=12).evaluate) == [15, 20, 25, 30, 35]


def test_no_strategy_is_none() -> None:
    found = cadence(save_strategy="no", logging_strategy="no", eval_strategy="no")
    assert not steps(found.save) + steps(found.log) + steps(found.evaluate)


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(SpecError, match=r"trainer\.save_strategy: 'minutes'"):
        cadence(save_strategy="minutes")


def test_better_is_lower_for_losses_and_higher_for_the_rest() -> None:
    loss, accuracy = cadence(), cadence(metric_for_best_model="eval_accuracy")
    assert loss.better(0.4, 0.5)
    assert not loss.better(0.5, 0.4)
    assert accuracy.metric == "accuracy"
    assert accuracy.better(0.5, 0.4)
    assert not cadence(metric_for_best_model="perplexity").greater_is_better
    assert not cadence(metric_for_best_model="accuracy", greater_is_better=False).better(0.5, 0.4)


def test_a_threshold_is_what_a_metric_must_be_better_by_and_nan_is_never_better() -> None:
    found = cadence(metric_for_best_model="accuracy")
    assert not found.better(0.52, 0.5, 0.05)
    assert found.better(0.56, 0.5, 0.05)
    assert found.better(0.1, None)
    assert not found.better(math.nan, None)


def test_what_a_cadence_stands_for_are_arguments_of_transformers() -> None:
    from dataclasses import fields

    from transformers import TrainingArguments

    assert set(SETTLED) <= {each.name for each in fields(TrainingArguments)}
