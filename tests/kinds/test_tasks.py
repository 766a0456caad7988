from __future__ import annotations

from typing import Any

import pytest

from hfray.kinds.tasks import make_task, served_models
from hfray.spec.score import ScoreJob
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.feature_extraction import FeatureExtraction
from hfray.tasks.openai.batch import BatchRequests
from tests.models.support import letter_tokenizer


def job(path: str = "org/m", **input: Any) -> ScoreJob:
    return ScoreJob.model_validate(
        {
            "name": "a",
            "model": {"path": path},
            "task": {"name": "feature-extraction"},
            "input": {"path": "x", **input},
            "output": {"path": "y"},
        }
    )


def test_the_format_of_the_input_puts_its_task_around_the_jobs() -> None:
    processor, info = Processor(tokenizer=letter_tokenizer()), ModelInfo("m", "bert")
    assert type(make_task(job(), processor, info)) is FeatureExtraction
    assert type(make_task(job(format="openai-batch"), processor, info)) is BatchRequests


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("org/m", ["org/m"]),
        ("./models/m/", ["./models/m/", "m"]),
        ("/models/m", ["/models/m", "m"]),
        ("package:weights/m", ["package:weights/m", "m"]),
    ],
)
def test_what_requests_may_call_the_model(path: str, names: list[str]) -> None:
    assert served_models(job(path)) == dict.fromkeys(names)


def test_an_adapter_on_a_base_answers_to_its_own_name() -> None:
    """As a job has it once it is checked, wherever `model.path` was the adapter."""
    checked = job("org/base")
    checked = checked.model_copy(update={"model": checked.model.model_copy(update={"adapter": "./my-lora"})})
    assert {"./my-lora", "my-lora"} <= set(served_models(checked))
    assert set(served_models(checked).values()) == {None}
