from __future__ import annotations

import pytest

from hfray.tasks.tool_calls import FORMATS, Format, ToolCall, detect

WEATHER = ToolCall("weather", '{"city": "Łódź"}')
TIME = ToolCall("time", "{}")


@pytest.mark.parametrize(
    ("format", "text", "calls"),
    [
        ("hermes", '\n{"name": "weather", "arguments": {"city": "Łódź"}}\n', [WEATHER]),
        ("hermes", '{"name": "time"}', [TIME]),
        ("hermes", '{"name": "weather", "arguments": "{\\"city\\": \\"Łódź\\"}"}', [WEATHER]),
        ("hermes", '{"name": "weather", "argum', None),
        ("hermes", '{"arguments": {}}', None),
        ("hermes", "[]", None),
        ("hermes", "[" * 100_000, None),
        ("mistral", ' [{"name": "weather", "arguments": {"city": "Łódź"}}, {"name": "time"}]', [WEATHER, TIME]),
        ("mistral", 'weather[ARGS]{"city": "Łódź"}', [WEATHER]),
        ("mistral", 'weather{"city": "Łódź"}[TOOL_CALLS]time[CALL_ID]a1b2c3d4e[ARGS]{}', [WEATHER, TIME]),
        ("mistral", 'weather[ARGS]{"city": ', None),
        ("mistral", "nothing of the kind", None),
        ("llama3", '{"name": "weather", "parameters": {"city": "Łódź"}}', [WEATHER]),
        ("llama3", '{"name": "weather", "parameters": {"city": "Łódź"}}; {"name": "time"}', [WEATHER, TIME]),
        ("llama3", '{"name": "time"} and so on', None),
        ("llama3", '{"answer": 42}', None),
        ("llama3", "", None),
    ],
)
def test_calls(format: Format, text: str, calls: list[ToolCall] | None) -> None:
    assert FORMATS[format].parse(text) == calls


@pytest.mark.parametrize(
    ("template", "format"),
    [
        ("<tool_call>\\n{\"name\": <function-name>}\\n</tool_call>", "hermes"),
        ("{{ '[TOOL_CALLS]' }}", "mistral"),
        ("{{ '<|start_header_id|>ipython' }} {\"name\": function name, \"parameters\": ...}", "llama3"),
        ("{{ messages }}", None),
    ],
)  # fmt: skip
def test_a_template_tells_the_format(template: str, format: str | None) -> None:
    assert detect(template) == format
