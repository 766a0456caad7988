"""Answers of a chat taken apart: at once by `decode`, token by token by `answer_stream`."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hfray.errors import RowError
from hfray.tasks.answers import answer_of
from hfray.tasks.base import ModelInfo, Processor
from hfray.tasks.text_generation import TextGeneration
from tests.tasks.generation_support import answer, tokenizer_of
from tests.tasks.test_chat_prompts import ASK, HERMES, TOOLS
from tests.tasks.test_text_generation import model_of

EOS = "<|endoftext|>"


def task(template: str = HERMES, special: tuple[str, ...] = (), **options: Any) -> TextGeneration:
    tokenizer = copy.deepcopy(tokenizer_of("phi-3-mini"))
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = template
    info = ModelInfo(name="tiny", model_type="llama", max_length=512)
    settings = {"input": "messages", "details": True, "max_new_tokens": 64, **options}
    return TextGeneration(TextGeneration.Options(**settings), Processor(tokenizer=tokenizer), info)


def answered(task: TextGeneration, text: str, *, finish: str = "stop", row: dict[str, Any] | None = None) -> Any:
    """The result for a model that writes this text; the stream must agree with it."""
    (encoded,) = task.encode([row or {"messages": [ASK], "tools": TOOLS}])
    assert not isinstance(encoded, RowError)
    tokens = np.array(task.processor.tokenizer(text, add_special_tokens=False).input_ids)
    result = task.decode([{"tokens": tokens, "finish": finish}], encoded.carry)
    stream = task.answer_stream(encoded.carry)
    streamed = answer_of([delta for token in tokens for delta in stream.push([token])] + stream.finish())
    assert streamed.content == result["text"]
    assert streamed.reasoning == result["reasoning"]
    assert [(call.name, call.arguments) for call in streamed.tool_calls] == [
        (call["name"], call["arguments"]) for call in result["tool_calls"]
    ]
    assert pa.array([result], task.result_type()).to_pylist() == [result]
    return result


def test_reasoning_and_calls_are_taken_out_of_the_text() -> None:
    said = (
        '<think>今天 is hard</think>\n\nLet me see.\n<tool_call>{"name": "weather", "arguments": {"c": 1}}</tool_call>'
    )
    result = answered(task(), said + EOS)
    assert result["text"] == "Let me see."
    assert result["reasoning"] == "今天 is hard"
    assert result["tool_calls"] == [{"name": "weather", "arguments": '{"c": 1}'}]
    assert result["finish"] == "tool_calls"
    assert result["logprobs"] is None
    assert result["completion_tokens"] > 20
    assert result["prompt_tokens"] > 10


def test_without_tools_and_without_a_format_a_call_is_text() -> None:
    said = '<tool_call>{"name": "weather"}</tool_call>'
    for result in (
        answered(task(), said, row={"messages": [ASK]}),
        answered(task(tool_format="none"), said),
        answered(task(HERMES.replace("tool_call>", "call>")), said),
    ):
        assert (result["text"], result["finish"], result["tool_calls"]) == (said, "stop", [])


def test_a_call_that_was_cut_off_by_its_length_says_so() -> None:
    assert answered(task(), '<tool_call>{"name": "weather"}</tool_call>', finish="length")["finish"] == "length"


def test_marks_that_are_special_tokens_are_seen_and_others_are_not() -> None:
    """Mistral's are special, and would be left out of a text."""
    mistral = task(HERMES + "{# [TOOL_CALLS] #}", special=("[TOOL_CALLS]", "[THINK]", "[/THINK]", "[OTHER]"))
    result = answered(mistral, '[THINK]so [OTHER]so[/THINK]Wait [TOOL_CALLS][{"name": "weather"}]' + EOS)
    assert (result["reasoning"], result["text"]) == ("so so", "Wait")
    assert result["tool_calls"] == [{"name": "weather", "arguments": "{}"}]
    plain = task(HERMES + "{# [TOOL_CALLS] #}", special=("[TOOL_CALLS]",), details=False)
    assert plain.decode([{"tokens": plain.processor.tokenizer("a[TOOL_CALLS]b").input_ids}], _carry(plain)) == "ab"


def _carry(task: TextGeneration) -> Any:
    (encoded,) = task.encode([{"messages": [ASK], "tools": TOOLS}])
    assert not isinstance(encoded, RowError)
    return encoded.carry


def test_an_answer_that_begins_inside_of_the_reasoning() -> None:
    thinking = task(HERMES.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}"))
    result = answered(thinking, "Well.\n</think>\nYes.")
    assert (result["reasoning"], result["text"]) == ("Well.", "Yes.")


def test_stop_strings_cut_before_the_parts_are_told() -> None:
    result = answered(task(stop=["END"]), "Yes. END <tool_call>")
    assert (result["text"], result["tool_calls"]) == ("Yes. ", [])


def test_log_probabilities_of_a_real_model() -> None:
    tokenizer = tokenizer_of("gpt2")
    info = ModelInfo(name="tiny", model_type="gpt2", max_length=256)
    options = TextGeneration.Options(max_new_tokens=6, logprobs=2)
    asked = TextGeneration(options, Processor(tokenizer=tokenizer), info)
    (result,) = answer(asked, model_of("gpt2"), [{"prompt": "Hello"}])
    assert [each["token"] for each in result["logprobs"]] == [each["top"][0]["token"] for each in result["logprobs"]], (
        "greedy takes the likeliest"
    )
    assert "".join(each["token"] for each in result["logprobs"]) == result["text"]
    assert all(each["logprob"] == each["top"][0]["logprob"] > each["top"][1]["logprob"] for each in result["logprobs"])
    assert pa.array([result], asked.result_type()).to_pylist() == [result]
    assert (result["prompt_tokens"], result["completion_tokens"], result["finish"]) == (1, 6, "length")


def test_a_token_that_ends_the_text_has_no_log_probability() -> None:
    asked = task(logprobs=0)
    tokens = np.array([*asked.processor.tokenizer("a b", add_special_tokens=False).input_ids, 32000])
    num = len(tokens)
    output = {
        "tokens": tokens, "finish": "stop", "logprobs": np.full(num, -0.5, np.float32),
        "top_ids": np.zeros((num, 0), np.int64), "top_logprobs": np.zeros((num, 0), np.float32),
    }  # fmt: skip
    result = asked.decode([output], _carry(asked))
    assert [each["logprob"] for each in result["logprobs"]] == [-0.5] * (num - 1)
    assert [each["id"] for each in result["logprobs"]] == [int(token) for token in tokens[: num - 1]]
    assert result["completion_tokens"] == num


@pytest.mark.parametrize("many", [False, True])
def test_summaries_and_metrics_read_detailed_results(many: bool) -> None:
    asked = task(**({"num_return_sequences": 2, "temperature": 1.0} if many else {}))
    one = {"text": "abc", "finish": "stop"}
    result: Any = [one, {"text": "a", "finish": "length"}] if many else one
    assert asked.summarize(result).label == "stop"
    assert asked.summarize(result).score == (2 if many else 3)
    assert asked.metrics([result], ["abc"]) == {"exact_match": 1.0}
    assert pa.types.is_list(asked.result_type()) == many
