"""How models write calls of tools into their answers, one small parser for each way. Knows texts; not tokens, not
what a template is given.

    hermes       <tool_call>{"name": ..., "arguments": {...}}</tool_call>, a block for each call (Hermes, Qwen 2.5, 3)
    mistral      [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...] or [TOOL_CALLS]name[ARGS]{...}, to the end
    llama3       {"name": ..., "parameters": {...}}, separated by ";", as the whole answer, or after <|python_tag|>
    granite      <|tool_call|>[{"name": ..., "arguments": {...}}, ...], to the end
    cohere       <|START_ACTION|>[{"tool_name": ..., "parameters": {...}}, ...]<|END_ACTION|>
    qwen3_coder  <tool_call><function=...><parameter=...>value</parameter></function></tool_call>
    seed_oss     <seed:tool_call>, and the same inside
    glm45        <tool_call>name<arg_key>...</arg_key><arg_value>value</arg_value></tool_call>

What is no call after all is text of the answer: nothing that a model wrote is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Format = Literal["hermes", "mistral", "llama3", "granite", "cohere", "qwen3_coder", "seed_oss", "glm45"]
Texts = frozenset[tuple[str, str]]
"""(tool, parameter) of parameters that are texts."""


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
    untyped: bool = False
    """Whether all values are written as texts: `with_types` tells what they are."""


def detect(template: str) -> Format | None:
    """By a model's chat template, which tells the model how to write a call."""
    if "[TOOL_CALLS]" in template:
        return "mistral"
    if "<|START_ACTION|>" in template:
        return "cohere"
    if "<seed:tool_call>" in template:
        return "seed_oss"
    if "<tool_call>" in template:
        return "glm45" if "<arg_key>" in template else "qwen3_coder" if "<function=" in template else "hermes"
    if "<|tool_call|>" in template:
        return "granite"
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


def _functions(text: str) -> list[ToolCall] | None:
    before, *functions = text.split("<function=")
    found: list[ToolCall] = []
    for function in functions:
        name, body, after = _between(function, ">", "</function>")
        lead, *parameters = body.split("<parameter=")
        values = dict(_between(each, ">", "</parameter>")[:2] for each in parameters)
        if not _NAME.fullmatch(name) or after.strip() or lead.strip() or "" in values:
            return None
        found.append(ToolCall(name, _text(values)))
    return found if found and not before.strip() else None


def _glm45(text: str) -> list[ToolCall] | None:
    name, *arguments = text.split("<arg_key>")
    values = {}
    for argument in arguments:
        key, mark, value = argument.partition("</arg_key>")
        opening, value, after = _between(value, "<arg_value>", "</arg_value>")
        if not mark or opening or after.strip():
            return None
        values[key.strip()] = value
    return [ToolCall(name.strip(), _text(values))] if _NAME.fullmatch(name.strip()) else None


def _between(text: str, first: str, second: str) -> tuple[str, str, str]:
    """What is before the first mark, between the two without a line's end at either side, and after the second. Where
    one is missing, everything is after."""
    name, begun, rest = text.partition(first)
    value, ended, after = rest.partition(second)
    if not (begun and ended):
        return "", "", text
    return name.strip(), value.removeprefix("\n").removesuffix("\n"), after


_NAME = re.compile(r"[\w.-]+")
_NAMED = re.compile(r"(?P<name>[\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?P<arguments>\{.*\})", re.DOTALL)

FORMATS: dict[Format, ToolFormat] = {
    "hermes": ToolFormat(("<tool_call>",), "</tool_call>", _hermes, specials=("<tool_call>", "</tool_call>")),
    "mistral": ToolFormat(("[TOOL_CALLS]",), None, _mistral, specials=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")),
    "llama3": ToolFormat(("<|python_tag|>", "{"), None, _llama3, only_first=True, specials=("<|python_tag|>",)),
    "granite": ToolFormat(("<|tool_call|>",), None, _hermes, specials=("<|tool_call|>",)),
    "cohere": ToolFormat(
        ("<|START_ACTION|>",), "<|END_ACTION|>", _hermes, specials=("<|START_ACTION|>", "<|END_ACTION|>")
    ),
    "qwen3_coder": ToolFormat(
        ("<tool_call>",), "</tool_call>", _functions, specials=("<tool_call>", "</tool_call>"), untyped=True
    ),
    "seed_oss": ToolFormat(
        ("<seed:tool_call>",),
        "</seed:tool_call>",
        _functions,
        specials=("<seed:tool_call>", "</seed:tool_call>"),
        untyped=True,
    ),
    "glm45": ToolFormat(
        ("<tool_call>",),
        "</tool_call>",
        _glm45,
        specials=("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        untyped=True,
    ),
}


def text_parameters(tools: Sequence[Any]) -> Texts:
    """Of a row's tools: JSON schemas of functions, in OpenAI's envelope or without."""
    found = set()
    for tool in tools:
        function = tool.get("function", tool)
        schema = function.get("parameters") if isinstance(function, dict) else None
        properties = schema.get("properties") if isinstance(schema, dict) else None
        for name, each in properties.items() if isinstance(properties, dict) else ():
            kinds = each.get("type") if isinstance(each, dict) else None
            if set(kinds if isinstance(kinds, list) else [kinds]) <= {"string", "null"}:
                found.add((str(function.get("name")), name))
    return frozenset(found)


def with_types(call: ToolCall, texts: Texts) -> ToolCall:
    """Arguments that are not `texts` are read as JSON where they are any."""
    values = {
        name: value if (call.name, name) in texts else _value(value)
        for name, value in json.loads(call.arguments).items()
    }
    return ToolCall(call.name, _text(values))


def _value(text: str) -> Any:
    value = _json(text)
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return text if value is None and text.strip() != "null" else value


def _calls(value: Any) -> list[ToolCall] | None:
    """The calls of one JSON value: an object, or a list of them."""
    values = value if isinstance(value, list) else [value]
    found = []
    for each in values:
        name = each.get("name", each.get("tool_name")) if isinstance(each, dict) else None
        if not isinstance(name, str):
            return None
        arguments = each.get("arguments", each.get("parameters", {}))
        found.append(ToolCall(name, arguments if isinstance(arguments, str) else _text(arguments)))
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
