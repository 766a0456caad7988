"""The messages of a chat and its tools, as rows hold them, checked. Knows roles and JSON; not templates, not tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hfray.errors import RowError
from hfray.tasks.text import any_cut, check_text

ROLES = ("system", "developer", "user", "assistant", "tool")
Message = dict[str, Any]


def check_messages(value: Any, what: str, options: Any) -> tuple[list[Message], bool]:
    """A list of {role, content}, checked, and whether `max_chars` cut a content. Other keys are kept for the template.

    Keys that are null are left out: Arrow gives every message all keys of any. Raises RowError: NullText, BadMessages,
    EmptyText, TextTooLong, and what `check_text` raises for a content.
    """
    if value is None:
        raise RowError(f"{what} is null", type="NullText")
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence | np.ndarray):
        raise RowError(f"{what} is {type(value).__name__}, not a list of messages", type="BadMessages")
    checked: list[Message] = []
    for position, message in enumerate(value):
        where = f"{what}[{position}]"
        if not isinstance(message, Mapping):
            raise RowError(f"{where} is {type(message).__name__}, not {{role, content}}", type="BadMessages")
        message = _without_nulls(message)
        if message.get("role") not in ROLES:
            raise RowError(
                f"{where}.role is {message.get('role')!r:.80}, not one of {', '.join(ROLES)}", type="BadMessages"
            )
        if "content" in message or not message.get("tool_calls"):
            message["content"] = check_text(message.get("content"), f"{where}.content", options, allow_empty=True)
        checked.append(message)
    contents = [message.get("content", "") for message in checked]
    if not any(text.strip() for text in contents) and not any(message.get("tool_calls") for message in checked):
        raise RowError(f"{what} has no content", type="EmptyText")
    if (total := sum(map(len, contents))) > options.max_chars:
        raise RowError(
            f"{what} has {total:,} characters together, over max_chars {options.max_chars:,}", type="TextTooLong"
        )
    return checked, any_cut(contents)


def check_tools(value: Any) -> list[Any] | None:
    """The tools of a row: a list of JSON schemas, or the JSON text of one; None where there are none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RowError(f"tools is not JSON: {error}", type="BadTools") from None
    value = _without_nulls(value)
    if not value and (value is None or isinstance(value, list)):
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowError("tools is not a list of JSON schemas", type="BadTools")
    return value


def _without_nulls(value: Any) -> Any:
    """A copy in plain lists and dicts, without keys whose value is null."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple | np.ndarray):
        return [_without_nulls(each) for each in value]
    return value
