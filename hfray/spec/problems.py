"""pydantic's errors in the words of someone who writes YAML. Knows spec classes; not files, not lines."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from hfray.spec.shape import Keys, dotted, fields, locate

_MAX_SHOWN_CHARS = 60
_CLOSE = 0.65  # `bf16` is close to `bfloat16` (0.67), `serve` is not to `score` (0.60)
_PLAIN_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number below 2 ** 63",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
}
_SECTION_TYPES = ("model_type", "model_attributes_type", "dataclass_type")


def problems(kind: type[BaseModel], errors: Sequence[Any]) -> dict[Keys, str]:
    """Keys of keys to what is wrong there. errors: `ValidationError.errors()`; those of one key (one for each member
    of a union that the value did not fit) become one sentence."""
    found: dict[Keys, list[Any]] = {}
    owners: dict[Keys, type[BaseModel] | None] = {}
    for error in errors:
        path, owner = locate(kind, error["loc"])
        path = _refined(path, error)
        found.setdefault(path, []).append(error)
        owners[path] = owner
    return {path: _sentence(kind, path, owners[path], each) for path, each in found.items() if not _echoes(path, found)}


def _echoes(path: Keys, found: Mapping[Keys, Sequence[Any]]) -> bool:
    """Whether a list is called short because the entries that are there are wrong."""
    below = any(len(other) > len(path) and other[: len(path)] == path for other in found)
    return below and all(error["type"] == "too_short" for error in found[path])


def _refined(path: Keys, error: Any) -> Keys:
    """The key that an error about a whole section means."""
    context = error.get("ctx") or {}
    match error["type"]:
        case "misfit":
            return (*path, *str(context["key"]).split("."))
        case "union_tag_invalid" | "union_tag_not_found":
            return (*path, "name")
        case "invalid_key":
            return (*path[:-1], str(path[-1]))
    return path[:-1] if path and path[-1] == "[key]" else path


def _sentence(kind: type[BaseModel], path: Keys, owner: type[BaseModel] | None, errors: Sequence[Any]) -> str:
    error = errors[0]
    context = error.get("ctx") or {}
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(kind, path, owner)
        case "missing" | "union_tag_not_found":
            return f"missing; `hfray explain {dotted(path)}` says what goes there"
        case "union_tag_invalid":
            known = _quoted_words(context["expected_tags"])
            return f"unknown name {shown(context['tag'])}{close_or_known(context['tag'], known)}"
        case "misfit":
            return str(context["problem"])
        case "value_error":
            return str(context["error"])
        case "string_too_short" | "too_short":
            return "must not be empty" if context["min_length"] == 1 else f"needs at least {context['min_length']}"
        case "string_too_long" | "too_long":
            return (
                f"may hold at most {context['max_length']} {'characters' if 'string' in error['type'] else 'entries'}"
            )
        case "string_pattern_mismatch":
            return f"{shown(error['input'])} must match {context['pattern']}"
        case "invalid_key":
            return "keys must be text; put them in quotes"
        case "recursion_loop":
            return "contains itself"
        case section if section in _SECTION_TYPES:
            return _no_section(kind, path, error["input"])
    return _no_member(errors)


def _no_member(errors: Sequence[Any]) -> str:
    given = errors[0]["input"]
    wanted: list[str] = []
    hint = ""
    for error in errors:
        context = error.get("ctx") or {}
        if error["type"] == "literal_error":
            known = _quoted_words(context["expected"])
            wanted += known if len(known) == 1 else [f"one of {', '.join(known)}"]
            hint = hint or close_to(given, known)
        elif error["type"] in _BOUNDS:
            name, words = _BOUNDS[error["type"]]
            wanted.append(f"{words} {context[name]:g}")
        else:
            wanted.append(_PLAIN_TYPES.get(error["type"], str(error["msg"]).removeprefix("Input should be ")))
    if wanted == ["text"] and isinstance(given, bool | int | float):
        hint = "; put it in quotes"
    sentence = f"must be {' or '.join(dict.fromkeys(wanted))}, not {shown(given)}"
    return sentence + hint


def _unknown_key(kind: type[BaseModel], path: Keys, owner: type[BaseModel] | None) -> str:
    key = str(path[-1])
    known = list(owner.model_fields) if owner is not None else []
    elsewhere = dict.fromkeys(each for each, _, _ in fields(kind) if each.rsplit(".", 1)[-1] == key)
    hint = close_to(key, known) or close_to(key, elsewhere, by_last=True) or f"; known: {', '.join(known)}"
    return f"unknown key{hint}"


def _no_section(kind: type[BaseModel], path: Keys, given: Any) -> str:
    start = f"{dotted(path)}."
    first = next((each.removeprefix(start) for each, _, _ in fields(kind) if each.startswith(start)), None)
    is_word = isinstance(given, str) and given.isprintable() and 0 < len(given) <= _MAX_SHOWN_CHARS
    example = f" such as {{{first}: {given}}}" if first and is_word else ""
    return f"must be a section of keys{example}, not {shown(given)}"


def shown(value: Any) -> str:
    """A value as its author would write it; only the kind of a long one."""
    if isinstance(value, Mapping):
        return "a mapping of keys" if value else "{}"
    if isinstance(value, list | tuple | set):
        return "a list" if value else "[]"
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}..."


def close_to(word: Any, known: Iterable[str], *, by_last: bool = False) -> str:
    """`, did you mean ...?`, or "" if nothing known is close. by_last: compare with the last key of dotted names."""
    if not isinstance(word, str):
        return ""
    names = {each.rsplit(".", 1)[-1] if by_last else each: each for each in known}
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=_CLOSE)
    return f", did you mean {names[close[0]]}?" if close else ""


def close_or_known(word: Any, known: Iterable[str]) -> str:
    """`, did you mean ...?`, or `; known: ...` with everything."""
    known = list(known)
    return close_to(word, known) or f"; known: {', '.join(known)}"


def _quoted_words(text: Any) -> list[str]:
    """`'a', 'b' or 'c'`, as pydantic lists what it expects."""
    return [each.strip(" '") for each in str(text).replace(" or ", ", ").split(",")]
