from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest

from hfray.serving.hf.call import Limits
from hfray.serving.hf.forms import FORMS
from hfray.serving.hf.protocol import parse
from hfray.serving.hf.schemas import (
    event_schema,
    example_event,
    example_input,
    example_output,
    input_schema,
    output_schema,
)
from hfray.tasks import TASKS
from tests.serving.hf.support import is_published, violations

LISTED = {"text-classification", "summarization", "translation", "text-generation"}
"""Answers that InferenceClient, and TGI, wrap in one list more than the published schemas have."""


def test_every_task_has_a_form() -> None:
    assert FORMS.keys() == TASKS.keys()


@pytest.mark.parametrize("task", FORMS)
def test_examples_are_true_to_their_own_schemas(task: str) -> None:
    for schema, example in (
        (input_schema(task), example_input(task)),
        (output_schema(task), example_output(task)),
    ):
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema).validate(example)
        assert schema["examples"] == [example]


@pytest.mark.parametrize("task", FORMS)
def test_examples_are_true_to_the_published_schemas(task: str) -> None:
    if not is_published(task):
        pytest.skip(f"no schema is published for {task}")
    assert violations(example_input(task), task, "input") == []
    answer = example_output(task)
    if task == "question-answering":  # one object where the schema has a list of one
        answer = [answer]
    assert violations(answer[0] if task in LISTED else answer, task, "output") == []


def test_the_published_schemas_can_be_broken() -> None:
    assert violations({"inputs": 1}, "fill-mask", "input")
    assert violations([{"label": "a"}], "image-classification", "output")
    assert violations({"token": {}}, "text-generation", "stream_output")


def test_the_event_of_a_stream() -> None:
    jsonschema.Draft202012Validator(event_schema()).validate(example_event())
    assert violations(example_event(), "text-generation", "stream_output") == []


@pytest.mark.parametrize("task", FORMS)
def test_schemas_stand_alone(task: str) -> None:
    def references(value: Any) -> bool:
        if isinstance(value, dict):
            return "$ref" in value or any(map(references, value.values()))
        return isinstance(value, list) and any(map(references, value))

    assert not references(input_schema(task))
    assert not references(output_schema(task))


@pytest.mark.parametrize("task", FORMS)
def test_an_example_is_a_copy(task: str) -> None:
    first = example_input(task)
    before = copy.deepcopy(first)
    first.clear()
    assert example_input(task) == before


@pytest.mark.parametrize("task", FORMS)
def test_unknown_fields_are_in_neither(task: str) -> None:
    body = {**example_input(task), "tensors": [1]}
    assert not jsonschema.Draft202012Validator(input_schema(task)).is_valid(body)
    with pytest.raises(Exception, match="tensors"):
        parse(task, body, Limits())
