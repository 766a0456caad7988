"""OpenAI's own description of its API, to check bodies against."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import SHARED_DATA


@cache
def _schemas() -> Any:
    path = SHARED_DATA / "specs" / "openai_openapi.yaml"
    if not path.is_file():
        pytest.skip("no shared data: specs/openai_openapi.yaml")
    load = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(path.read_text("utf-8"))
    return load.get_single_data()["components"]["schemas"]


@cache
def schema_of(name: str) -> dict[str, Any]:
    """With the properties of its parents."""
    found = dict(_schemas()[name])
    for part in found.get("allOf", ()):
        inner = schema_of(part["$ref"].rpartition("/")[2]) if "$ref" in part else part
        found["properties"] = {**inner.get("properties", {}), **found.get("properties", {})}
    return found


def check_body(body: Any, name: str) -> None:
    """Raises jsonschema's error for a body that the API does not describe."""
    document = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": _schemas()}}
    jsonschema.Draft202012Validator(document).validate(body)
