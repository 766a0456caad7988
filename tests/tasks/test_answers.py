from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfray.tasks.answers import Answer, AnswerParser, answer_of
from hfray.tasks.tool_calls import FORMATS, ToolCall

CALL = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
F = ToolCall("f", '{"x": 1}')
G = ToolCall("g", "{}")


def parse(pieces: list[str], tools: Any = None, **settings: Any) -> Answer:
    parser = AnswerParser(None if tools is None else FORMATS[tools], **settings)
    return answer_of([delta for piece in pieces for delta in parser.push(piece)] + parser.finish())


CASES: list[tuple[str, str | None, dict[str, Any], Answer]] = [
    ("Hello. ", None, {}, Answer("Hello. ", None, ())),
    (" <thin", None, {}, Answer(" <thin", None, ())),
    ("<think>\nWell,\nso. \n</think>\n\n Yes. ", None, {}, Answer("Yes. ", "Well,\nso.", ())),
    ("[THINK]a[/THINK]b", None, {}, Answer("b", "a", ())),
    ("<think>cut off", None, {}, Answer("", "cut off", ())),
    ("\nso</think>Yes", None, {"in_reasoning": True}, Answer("Yes", "so", ())),
    ("never ends </thin", None, {"in_reasoning": True}, Answer("", "never ends </thin", ())),
    ("I <think>not</think>", None, {}, Answer("I <think>not</think>", None, ())),
    (CALL, None, {}, Answer(CALL, None, ())),
    (CALL, "hermes", {}, Answer("", None, (F,))),
    (f"Sure.\n\n{CALL}\n{CALL}\n", "hermes", {}, Answer("Sure.", None, (F, F))),
    (f"<think>a</think>\n{CALL}", "hermes", {}, Answer("", "a", (F,))),
    ('<tool_call>{"name": "g"}', "hermes", {}, Answer("", None, (G,))),
    ("A\n<tool_call>no</tool_call> b", "hermes", {}, Answer("A\n<tool_call>no</tool_call> b", None, ())),
    ("A <tool_call> b", "hermes", {}, Answer("A <tool_call> b", None, ())),
    ("5 < 6 <tool", "hermes", {}, Answer("5 < 6 <tool", None, ())),
    ('Ok [TOOL_CALLS][{"name": "g"}]', "mistral", {}, Answer("Ok", None, (G,))),
    ('[TOOL_CALLS]g[ARGS]{"a": 2}', "mistral", {}, Answer("", None, (ToolCall("g", '{"a": 2}'),))),
    ("[TOOL_CALLS] no", "mistral", {}, Answer("[TOOL_CALLS] no", None, ())),
    ('\n{"name": "g", "parameters": {}}', "llama3", {}, Answer("", None, (G,))),
    ('<|python_tag|>{"name": "g"}; {"name": "g"}', "llama3", {}, Answer("", None, (G, G))),
    ('{"a": 1} is JSON', "llama3", {}, Answer('{"a": 1} is JSON', None, ())),
    ('Say {"name": "g"}', "llama3", {}, Answer('Say {"name": "g"}', None, ())),
    ("", "llama3", {}, Answer("", None, ())),
]


@pytest.mark.parametrize(("text", "tools", "settings", "answer"), CASES)
def test_a_text_in_any_pieces(text: str, tools: str | None, settings: dict[str, Any], answer: Answer) -> None:
    assert parse([text], tools, **settings) == answer
    assert parse(list(text), tools, **settings) == answer
    for place in range(1, len(text)):
        assert parse([text[:place], text[place:]], tools, **settings) == answer


_PARTS = st.lists(
    st.sampled_from(
        ["a", " ", "\n", "{", "}", '{"name": "g"}', "<think>", "</think>", "[THINK]", "<tool_call>", "</tool_call>",
         "<", "[TOOL_CALLS]", "<|python_tag|>", "b c", ";"]
    ),
    max_size=9,
)  # fmt: skip


@given(_PARTS, st.sampled_from([None, "hermes", "mistral", "llama3"]), st.booleans())
def test_pieces_never_change_the_answer(parts: list[str], tools: str | None, in_reasoning: bool) -> None:
    whole = parse(["".join(parts)], tools, in_reasoning=in_reasoning)
    assert parse(parts, tools, in_reasoning=in_reasoning) == whole
    assert parse(list("".join(parts)), tools, in_reasoning=in_reasoning) == whole


def test_what_is_certain_is_given_out_at_once() -> None:
    parser = AnswerParser(FORMATS["hermes"])
    assert [each.content for each in parser.push("Sure, ")] == ["Sure,"]
    assert parser.push("<tool_c") == []
    assert parser.push('all>{"name": "g"}') == []
    assert [each.tool_call for each in parser.push("</tool_call>")] == [G]
