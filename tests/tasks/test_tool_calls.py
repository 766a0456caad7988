from __future__ import annotations

import json

import pytest

from hfray.tasks.answers import AnswerParser, answer_of
from hfray.tasks.tool_calls import FORMATS, Format, ToolCall, detect, text_parameters, with_types

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
        ("granite", '[{"name": "weather", "arguments": {"city": "Łódź"}}, {"name": "time"}]', [WEATHER, TIME]),
        ("granite", "[{", None),
        (
            "cohere",
            '[\n {"tool_call_id": "0", "tool_name": "weather", "parameters": {"city": "Łódź"}},'
            ' {"tool_call_id": "1", "tool_name": "time", "parameters": {}}\n]',
            [WEATHER, TIME],
        ),
        ("cohere", '[{"tool_call_id": "0"}]', None),
        ("qwen3_coder", "\n<function=weather>\n<parameter=city>\nŁódź\n</parameter>\n</function>\n", [WEATHER]),
        ("qwen3_coder", "<function=time>\n</function>", [TIME]),
        ("qwen3_coder", "<function=time></function><function=time></function>", [TIME, TIME]),
        ("qwen3_coder", "<function=weather>\n<parameter=city>\nŁó", None),
        ("qwen3_coder", "<function=weather>\n<parameter=city>\nŁó</function>", None),
        ("qwen3_coder", "well <function=time></function>", None),
        ("qwen3_coder", '{"name": "time"}', None),
        ("seed_oss", "\n<function=weather>\n<parameter=city>Łódź</parameter>\n</function>\n", [WEATHER]),
        ("glm45", "weather\n<arg_key>city</arg_key>\n<arg_value>Łódź</arg_value>\n", [WEATHER]),
        ("glm45", "time", [TIME]),
        ("glm45", "\ntime\n", [TIME]),
        ("glm45", "weather\n<arg_key>city</arg_key>\n<arg_value>Łó", None),
        ("glm45", "weather\n<arg_key>city\n<arg_value>Łódź</arg_value>", None),
        ("glm45", "and so on", None),
        ("glm45", "", None),
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
        ("<tool_call>\\n<function=example_function_name>\\n<parameter=example_parameter_1>", "qwen3_coder"),
        ("<tool_call>{function-name}\\n<arg_key>{arg-key-1}</arg_key>", "glm45"),
        ("{%- set toolcall_begin_token = \"<seed:tool_call>\" -%}<function=example", "seed_oss"),
        ("{{ '<|START_ACTION|>' }}", "cohere"),
        ("{{ '<|tool_call|>' }}", "granite"),
        ("{{ messages }}", None),
    ],
)  # fmt: skip
def test_a_template_tells_the_format(template: str, format: str | None) -> None:
    assert detect(template) == format


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "code": {"type": ["string", "null"]},
                    "days": {"type": "integer"},
                    "where": {"type": "object"},
                    "any": {},
                },
            },
        },
    },
    {"name": "plain", "parameters": {"properties": {"text": {"type": "string"}}}},
]


def test_values_are_what_the_tools_say() -> None:
    texts = text_parameters(TOOLS)
    assert texts == {("weather", "city"), ("weather", "code"), ("plain", "text")}
    assert (
        text_parameters([{}, {"function": 3}, {"parameters": []}, {"parameters": {"properties": [1]}}]) == frozenset()
    )
    written = {
        "city": "5", "code": "007", "days": "3", "where": '{"x": [1, null]}', "any": "true", "other": "so so",
        "null": "null", "nan": "NaN", "huge": "1e999", "deep": "[" * 100_000,
    }  # fmt: skip
    call = with_types(ToolCall("weather", json.dumps(written)), texts)
    assert json.loads(call.arguments) == written | {"days": 3, "where": {"x": [1, None]}, "any": True, "null": None}
    assert json.loads(with_types(ToolCall("other", '{"city": "5"}'), texts).arguments) == {"city": 5}


def test_the_parser_of_answers_gives_types() -> None:
    said = (
        "Sure.\n<tool_call>\n<function=weather>\n<parameter=city>\n5\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
    )
    said += "</function>\n</tool_call>"
    for pieces in ([said], list(said)):
        parser = AnswerParser(FORMATS["qwen3_coder"], texts=text_parameters(TOOLS))
        answer = answer_of([*(each for piece in pieces for each in parser.push(piece)), *parser.finish()])
        assert answer.content == "Sure."
        (call,) = answer.tool_calls
        assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "5", "days": 3})
