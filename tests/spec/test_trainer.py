"""Training arguments by name: Transformers' own, with values of their types, and none that are the job's own."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from transformers import TrainingArguments

from hfray.errors import SpecError
from hfray.spec.trainer import ALIASES, HONOURED, OPERATIONAL, RENAMED, RESERVED, check_trainer_fields, refusal

NAMES = {field.name for field in dataclasses.fields(TrainingArguments)}


def test_values_are_those_of_transformers() -> None:
    given = {
        "learning_rate": "1e-3",  # as YAML 1.1 reads it
        "num_train_epochs": 3,
        "per_device_train_batch_size": 16,
        "lr_scheduler_type": "cosine",
        "lr_scheduler_kwargs": {"num_cycles": 2},
        "eval_strategy": False,
        "save_strategy": "epoch",
        "bf16": True,
        "report_to": ["tensorboard"],
        "save_total_limit": None,
        "activation_checkpointing": True,
    }
    checked = check_trainer_fields(given)
    assert checked == given | {"learning_rate": 1e-3, "eval_strategy": "no"}
    assert check_trainer_fields({}) == {}


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("num_train_epoch", 3, "is no training argument, did you mean num_train_epochs?"),
        ("zzz", 3, "is no training argument of Transformers"),
        ("learning_rate", "fast", "must be a number, not 'fast'"),
        ("learning_rate", True, "must be a number, not true"),
        ("max_steps", 1.5, "must be a whole number, not 1.5"),
        ("bf16", "perhaps", "must be true or false, not 'perhaps'"),
        ("save_total_limit", "x", "must be a whole number or null, not 'x'"),
        ("lr_scheduler_type", "cosin", "unknown value 'cosin', did you mean cosine?"),
        ("eval_strategy", "always", "unknown value 'always'; known: no, steps, epoch"),
        ("lr_scheduler_kwargs", [1], "must be a mapping of keys or text or null, not a list"),
        ("output_dir", "x", "is the job's own output.path"),
        ("bf16_full_eval", True, RESERVED["bf16_full_eval"]),
        (
            "dataloader_num_workers",
            4,
            "does nothing here, where a worker reads its batches itself; remove it",
        ),
        ("hub_token", "x", "is not for a job; publish the finished folder with `hfray push`"),
        (
            "warmup_ratio",
            0.1,
            "is not an argument of this release; write warmup_steps; below 1 it is a share of the run",
        ),
    ],
)
def test_a_mistake_is_told_by_name(name: str, value: Any, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_trainer_fields({name: value})
    assert str(caught.value) == f"trainer.{name}: {problem}"


def test_an_older_name_is_passed_on_as_the_new_one() -> None:
    assert check_trainer_fields({"gradient_checkpointing": True}) == {"activation_checkpointing": True}
    assert set(ALIASES) | set(ALIASES.values()) <= NAMES
    with pytest.raises(SpecError, match="is an older name of activation_checkpointing, which is given too"):
        check_trainer_fields({"gradient_checkpointing": True, "activation_checkpointing": True})


def test_mistakes_are_told_together() -> None:
    with pytest.raises(SpecError) as caught:
        check_trainer_fields({"bf16": "x", "seed": 1, "max_steps": 3})
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["trainer.bf16", "trainer.seed"]


def test_each_argument_does_something_or_is_refused() -> None:
    assert set(RESERVED) | HONOURED == NAMES
    assert not set(RESERVED) & HONOURED


def test_the_lists_are_of_this_release() -> None:
    assert set(RESERVED) <= NAMES
    assert OPERATIONAL <= HONOURED
    assert not set(RENAMED) & NAMES
    assert refusal("learning_rate") is None


def test_every_default_is_of_its_type() -> None:
    for field in dataclasses.fields(TrainingArguments):
        if field.default is not dataclasses.MISSING and refusal(field.name) is None:
            value = getattr(field.default, "value", field.default)
            assert check_trainer_fields({field.name: value}) == {ALIASES.get(field.name, field.name): value}
