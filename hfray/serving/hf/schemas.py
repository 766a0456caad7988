"""JSON Schemas and examples of bodies and answers, for an OpenAPI document. Knows pydantic's way of writing them; no
field. Every schema stands alone: it refers to nothing outside of itself."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import TypeAdapter

from hfray.serving.hf.call import Limits
from hfray.serving.hf.events import End, Token, stream_event
from hfray.serving.hf.forms import FORMS
from hfray.serving.hf.protocol import parse, render
from hfray.serving.hf.shapes import StreamEvent


def example_input(task: str) -> dict[str, Any]:
    """A body that `parse` accepts."""
    return copy.deepcopy(dict(FORMS[task].example))


def example_output(task: str) -> Any:
    """The answer to `example_input`, from a result that is made up."""
    call = parse(task, example_input(task), Limits())
    return render(call, [FORMS[task].result] * len(call.rows))


def input_schema(task: str) -> dict[str, Any]:
    """What `parse` accepts, but for limits that are the gateway's."""
    return {**_inlined(TypeAdapter(FORMS[task].body)), "examples": [example_input(task)]}


def output_schema(task: str) -> dict[str, Any]:
    """What `render` gives."""
    return {**_inlined(TypeAdapter(FORMS[task].answer)), "examples": [example_output(task)]}


def example_event() -> dict[str, Any]:
    """The last event of a stream of text-generation."""
    call = parse("text-generation", {**example_input("text-generation"), "stream": True}, Limits())
    return stream_event(call, 2, Token(373, " was", -0.1), End(" there was", "length", 4, 2))


def event_schema() -> dict[str, Any]:
    """What `stream_event` gives."""
    return {**_inlined(TypeAdapter(StreamEvent)), "examples": [example_event()]}


def _inlined(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    schema = adapter.json_schema()
    definitions = schema.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, list):
            return [inline(each) for each in value]
        if not isinstance(value, dict):
            return value
        rest = {key: inline(each) for key, each in value.items() if key != "$ref"}
        if "$ref" not in value:
            return rest
        return {**inline(definitions[value["$ref"].rpartition("/")[2]]), **rest}

    found: dict[str, Any] = inline(schema)
    return found
