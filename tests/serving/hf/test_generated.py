from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from hfray.serving.hf.call import Call, Limits
from hfray.serving.hf.protocol import parse, render
from hfray.serving.hf.schemas import output_schema
from tests.serving.hf.support import violations

TASK = "text-generation"


def call_of(*, stream: bool = False, inputs: Any = "Once", **parameters: Any) -> Call:
    return parse(TASK, {"inputs": inputs, "parameters": parameters, "stream": stream}, Limits())


def result(*tokens: str, finish: str = "stop", top: int = 0) -> dict[str, Any]:
    """As the task gives it with details and log-probabilities; tokens with their numbers."""
    scores = [{"id": place, "token": text, "logprob": -0.5} for place, text in enumerate(tokens)]
    return {
        "text": "".join(tokens),
        "finish": finish,
        "reasoning": None,
        "tool_calls": [],
        "prompt_tokens": 1,
        "completion_tokens": len(tokens),
        "logprobs": [{**each, "top": [each] * top} for each in scores],
    }


def answer(call: Call, *results: Any) -> Any:
    found = render(call, results)
    jsonschema.Draft202012Validator(output_schema(TASK)).validate(found)
    return found


def test_texts() -> None:
    assert answer(call_of(), "x") == [{"generated_text": "x"}]
    assert answer(call_of(inputs=["a", "b"]), "x", "y") == [[{"generated_text": "x"}], [{"generated_text": "y"}]]
    two = [{"generated_text": "x"}, {"generated_text": "y"}]
    assert answer(call_of(num_return_sequences=2, do_sample=True), ["x", "y"]) == two


def test_an_endpoint_with_details_of_its_own_keeps_them_to_itself() -> None:
    assert answer(call_of(), result("a", "b")) == [{"generated_text": "ab"}]
    assert answer(call_of(), [result("a"), result("b")]) == [{"generated_text": "a"}, {"generated_text": "b"}]


@pytest.mark.parametrize(
    ("finish", "stop", "reason"),
    [("length", ["b"], "length"), ("stop", [], "eos_token"), ("stop", ["ab"], "stop_sequence")],
)
def test_details(finish: str, stop: list[str], reason: str) -> None:
    (found,) = answer(call_of(details=True, seed=7, stop=stop), result("a", "b", finish=finish))
    assert violations(found, TASK, "output") == []
    assert found["details"] == {
        "finish_reason": reason,
        "generated_tokens": 2,
        "prefill": [],
        "seed": 7,
        "tokens": [
            {"id": 0, "text": "a", "logprob": -0.5, "special": False},
            {"id": 1, "text": "b", "logprob": -0.5, "special": False},
        ],
    }


def test_top_tokens() -> None:
    (found,) = answer(call_of(details=True, top_n_tokens=2), result("a", "b", top=2))
    assert [len(each) for each in found["details"]["top_tokens"]] == [2, 2]
    assert violations(found, TASK, "output") == []


def test_tokens_without_a_number_are_left_out() -> None:
    told = result("a")
    del told["logprobs"][0]["id"]
    (found,) = answer(call_of(details=True), told)
    assert found["details"]["tokens"] == []
    assert violations(found, TASK, "output") == []
