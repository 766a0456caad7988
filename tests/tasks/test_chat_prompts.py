"""Templates in the manner of real families, over a real tokenizer. What an answer is made of: test_text_results.py."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hfray.errors import RowError
from hfray.tasks.chat_prompts import ChatPrompts
from hfray.tasks.text_generation import TextGeneration
from hfray.tasks.tool_calls import FORMATS
from tests.tasks.generation_support import tokenizer_of

HERMES = (
    "{%- if tools %}<|system|>tools:{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    "\nAnswer with <tool_call>{...}</tool_call><|end|>{% endif %}"
    "{%- for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}"
    "{%- for call in m.tool_calls or [] %}<tool_call>{{ call.function.name }}:"
    "{% for key, value in call.function.arguments.items() %}{{ key }}={{ value }}{% endfor %}</tool_call>{% endfor %}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
ASK = {"role": "user", "content": "Weather?"}


def prompts(template: str = HERMES) -> ChatPrompts:
    tokenizer = copy.copy(tokenizer_of("phi-3-mini"))
    tokenizer.chat_template = template
    return ChatPrompts(tokenizer)


def options(**changes: Any) -> Any:
    return TextGeneration.Options(input="messages", **changes)


def text(row: dict[str, Any], template: str = HERMES, **changes: Any) -> str:
    return prompts(template).prompt(row, options(**changes)).text


def test_tools_go_through_the_template() -> None:
    assert text({"messages": [ASK]}) == "<|user|>Weather?<|end|><|assistant|>"
    for tools in (TOOLS, '[{"type": "function", "function": {"name": "weather"}}]'):
        prompt = prompts().prompt({"messages": [ASK], "tools": tools}, options())
        assert prompt.has_tools
        assert prompt.text.startswith('<|system|>tools:{"type": "function", "function": {"name": "weather"')
    assert not prompts().prompt({"messages": [ASK], "tools": None}, options()).has_tools


def test_what_is_no_tool_or_has_no_place_is_refused() -> None:
    for tools, type_ in (("{", "BadTools"), ([1], "BadTools")):
        with pytest.raises(RowError) as caught:
            text({"messages": [ASK], "tools": tools})
        assert caught.value.type == type_
    with pytest.raises(RowError, match="no place for them") as caught:
        text({"messages": [ASK], "tools": TOOLS}, template="{{ messages[0].content }}")
    assert caught.value.type == "NoTools"


def test_a_conversation_with_calls_goes_on() -> None:
    """OpenAI's form has arguments as JSON text, templates want an object; nulls that Arrow adds are no keys."""
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        {**ASK, "tool_calls": None, "name": None},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sunny", "tool_call_id": "1"},
    ]
    assert text({"messages": messages}) == (
        "<|user|>Weather?<|end|><|assistant|><tool_call>weather:city=Rome</tool_call><|end|>"
        "<|tool|>sunny<|end|><|assistant|>"
    )
    assert call["function"]["arguments"] == '{"city": "Rome"}', "the row is left as it is"


def test_a_begun_answer_is_gone_on_with_if_the_job_says_so() -> None:
    begun = {"messages": [ASK, {"role": "assistant", "content": "It is "}]}
    assert text(begun, continue_final_message=True) == "<|user|>Weather?<|end|><|assistant|>It is "
    assert text(begun) == "<|user|>Weather?<|end|><|assistant|>It is <|end|><|assistant|>"
    assert text({"messages": [ASK]}, continue_final_message=True) == "<|user|>Weather?<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("template", "last", "is_open"),
    [
        (HERMES, None, False),
        (HERMES.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}"), None, True),
        (HERMES, "<think>First", True),
        (HERMES, "<think>First</think>So", False),
    ],
)
def test_whether_the_prompt_ends_inside_of_the_reasoning(template: str, last: str | None, is_open: bool) -> None:
    messages = [{**ASK, "content": "<think>"}, *([] if last is None else [{"role": "assistant", "content": last}])]
    prompt = prompts(template).prompt({"messages": messages}, options(continue_final_message=True))
    assert prompt.in_reasoning == is_open


def test_the_format_of_calls() -> None:
    assert prompts().tool_format("auto") is FORMATS["hermes"]
    assert prompts().tool_format("none") is None
    assert prompts().tool_format("mistral") is FORMATS["mistral"]
    assert prompts("{{ messages }}").tool_format("auto") is None
    assert prompts({"default": "x", "tool_use": "[TOOL_CALLS]"}).tool_format("auto") is FORMATS["mistral"]  # type: ignore[arg-type]
