"""The published schemas of the Hugging Face tasks, ready to validate with."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT6

from tests.conftest import SHARED_DATA

FOLDER = SHARED_DATA / "specs" / "hf_inference_tasks"


@lru_cache
def _registry() -> Registry[Any]:
    if not FOLDER.is_dir():
        pytest.skip("no shared data: specs/hf_inference_tasks")
    schemas = [json.loads(path.read_text("utf-8")) for path in FOLDER.glob("*.json")]
    return Registry().with_resources([(each["$id"], Resource(each, DRAFT6)) for each in schemas])


def is_published(task: str) -> bool:
    """Whether there is a schema for the task at all: perplexity, text-ranking and text2text-generation have none."""
    _registry()
    return (FOLDER / f"{task}.input.json").is_file()


def violations(value: Any, task: str, part: str) -> list[str]:
    """What is wrong with a body in the eyes of the published schema. part: input, output, stream_output."""
    registry = _registry()
    schema = json.loads((FOLDER / f"{task}.{part}.json").read_text("utf-8"))
    # TGI's generator writes its bounds as text and its defaults too; only the structure is of use.
    validator = jsonschema.Draft6Validator(schema, registry=registry)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
