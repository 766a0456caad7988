"""Bodies that nobody wrote: they are parsed or refused, and what the schema refuses is refused."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import jsonschema
import pytest

from hfray.serving.errors import RequestError
from hfray.serving.hf.call import Limits
from hfray.serving.hf.forms import FORMS
from hfray.serving.hf.protocol import parse
from hfray.serving.hf.schemas import example_input, input_schema

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**53, 2**63, 1e308, 0.5, 1.0, float("nan"), "", "a",
    "\x00", "\ud800", "data:", "A" * 99,
    [], [[]], ["a"], ["a", "a"], [None], [1], {}, {"a": 1}, {"text": "a", "text_pair": "b"}, {"": {"": []}},
    {"question": "a", "context": "b"}, {"source_sentence": "a", "sentences": ["b"]}, {"name": "fill-mask"},
)  # fmt: skip
NUM_BODIES = 500


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a body."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [found for key in keys for found in [(value, key), *places(value[key])]]


def mutated(chance: random.Random, body: Any, names: list[str]) -> Any:
    body = copy.deepcopy(body)
    for _ in range(chance.randint(1, 3)):
        container, key = chance.choice([*places(body), (body, "parameters"), (body, chance.choice(names))])
        if chance.random() < 0.2 and isinstance(container, dict):
            container.pop(key, None)
        elif chance.random() < 0.5 and isinstance(container.get(key) if isinstance(container, dict) else None, dict):
            container[key][chance.choice(names)] = copy.deepcopy(chance.choice(VALUES))
        else:
            container[key] = copy.deepcopy(chance.choice(VALUES))
    return body


def refusal_of(task: str, body: Any) -> RequestError | None:
    try:
        parse(task, body, Limits())
    except RequestError as error:
        return error
    return None


@pytest.mark.parametrize("task", FORMS)
def test_bodies(task: str) -> None:
    chance = random.Random(task)
    kind = FORMS[task].body
    fields = type(kind.model_construct(**example_input(task)).asked()[0]) if task == "text-ranking" else kind
    names = [
        "options",
        "stream",
        "tensors",
        "name",
        "\x1b[31m\r\n" + "k" * 2000,
        "max_chars",
        *kind.model_fields,
        *fields.model_fields,
    ]
    for each in kind.model_fields.values():
        names += getattr(getattr(each.annotation, "__args__", (None,))[0], "model_fields", ())
    validator = jsonschema.Draft202012Validator(input_schema(task))
    num_parsed = 0
    for _ in range(NUM_BODIES):
        body = mutated(chance, example_input(task), names)
        error = refusal_of(task, body)
        if error is None:
            num_parsed += 1
            assert validator.is_valid(body), body
            continue
        assert error.status in (413, 422)
        assert len(error.message) < 1000
        assert error.message.isprintable()
        json.dumps(error.message, ensure_ascii=False).encode("utf-8")
    assert 0 < num_parsed < NUM_BODIES
