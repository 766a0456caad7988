"""How models write calls of tools into their answers, one small parser for each way. Knows texts; not tokens, not
what a template is given.

    hermes    <tool_call>{"name": ..., "arguments": {...}}</tool_call>, a block for each call (Hermes, Qwen 2.5, Qwen 3)
    mistral   [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...] or [TOOL_CALLS]name[ARGS]{...}, to the end
    llama3    {"name": ..., "parameters": {...}}, separated by ";", as the whole answer, or after <|python_tag|>

What is no call after all is text of the answer: nothing that a model wrote is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Format = Literal["hermes", "llama3", "mistral"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """arguments: JSON text, mostly of an object; as a model may break off, not always a whole one."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """opening: what a call begins with. closing: what it ends with; None: it goes on to the end of the answer.
    only_first: a call is one only where the answer begins with it."""

    opening: tuple[str, ...]
    closing: str | None
    parse: Callable[[str], list[ToolCall] | None]
    """The text from after the opening to before the closing; None: no call. (`llama3` is given its opening brace.)"""
    only_first: bool = False
    specials: tuple[str, ...] = ()
    """Special tokens that belong to it."""


def detect(template: str) -> Format | None:
    """By a model's chat template, which tells the model how to write a call."""
    if "[TOOL_CALLS]" in template:
        return "mistral"
    if "<tool_call>" in template:
        return "hermes"
    if "<|python_tag|>" in template or ('"parameters"' in template and "ipython" in template):
        return "llama3"
    return None


def _hermes(text: str) -> list[ToolCall] | None:
    return _calls(_json(text))


def _mistral(text: str) -> list[ToolCall] | None:
    if text.lstrip().startswith("["):
        return _calls(_json(text))
    found: list[ToolCall] = []
    for piece in text.split("[TOOL_CALLS]"):
        match = _NAMED.fullmatch(piece.strip())
        if match is None or not isinstance(_json(match["arguments"]), dict):
            return None
        found.append(ToolCall(match["name"], _text(_json(match["arguments"]))))
    return found


def _llama3(text: str) -> list[ToolCall] | None:
    found: list[ToolCall] = []
    for value in _json_values(text):
        calls = _calls(value)
        if calls is None:
            return None
        found += calls
    return found or None


_NAMED = re.compile(r"(?P<name>[\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?P<arguments>\{.*\})", re.DOTALL)

FORMATS: dict[Format, ToolFormat] = {
    "hermes": ToolFormat(("<tool_call>",), "</tool_call>", _hermes, specials=("<tool_call>", "</tool_call>")),
    "mistral": ToolFormat(("[TOOL_CALLS]",), None, _mistral, specials=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")),
    "llama3": ToolFormat(("<|python_tag|>", "{"), None, _llama3, only_first=True, specials=("<|python_tag|>",)),
}


def _calls(value: Any) -> list[ToolCall] | None:
    """The calls of one JSON value: an object, or a list of them."""
    values = value if isinstance(value, list) else [value]
    found = []
    for each in values:
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            return None
        arguments = each.get("arguments", each.get("parameters", {}))
        found.append(ToolCall(each["name"], arguments if isinstance(arguments, str) else _text(arguments)))
    return found or None


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json(text: str) -> Any:
    """None where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json_values(text: str) -> Iterator[Any]:
    """Values one after another, with ";" between them; ends with None where the text is none."""
    decoder = json.JSONDecoder()
    place = 0
    while rest := text[place:].lstrip(" \t\r\n;"):
        place = len(text) - len(rest)
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            yield None
            return
        yield value
