"""Messages and tools of a row. Each kind of bad message: test_text_generation.py."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hfray.errors import RowError
from hfray.tasks.base import TaskOptions
from hfray.tasks.messages import check_messages, check_tools

OPTIONS = TaskOptions(name="any", max_chars=20, over_max_chars="truncate")
CALL = {"function": {"name": "f", "arguments": {"x": 1, "y": None}}}


def test_other_keys_are_kept_and_nulls_are_none() -> None:
    """Arrow gives every message all keys of any, and lists as arrays."""
    value = np.array([{"role": "user", "content": "a", "name": "n", "tool_calls": None}], dtype=object)
    assert check_messages(value, "messages", OPTIONS) == ([{"role": "user", "content": "a", "name": "n"}], False)
    given: list[dict[str, Any]] = [{"role": "assistant", "content": None, "tool_calls": [CALL]}]
    found, _ = check_messages(given, "messages", OPTIONS)
    assert found == [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}]
    assert given[0]["tool_calls"] == [CALL], "the row is left as it is"


def test_a_content_that_was_cut_is_told() -> None:
    found, cut = check_messages([{"role": "user", "content": "x" * 21}], "messages", OPTIONS)
    assert (found[0]["content"], cut) == ("x" * 20, True)


@pytest.mark.parametrize("tools", [None, [], "[]", "null"])
def test_no_tools(tools: Any) -> None:
    assert check_tools(tools) is None


def test_tools() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": None}}
    wanted = [{"type": "function", "function": {"name": "f"}}]
    assert check_tools([tool]) == check_tools(json.dumps([tool])) == wanted
    for bad in ("{", {"a": 1}, ["f"], 5):
        with pytest.raises(RowError) as caught:
            check_tools(bad)
        assert caught.value.type == "BadTools"
