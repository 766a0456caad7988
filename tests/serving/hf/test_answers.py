from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from hfray.serving.errors import RequestError
from hfray.serving.hf.call import Limits
from hfray.serving.hf.protocol import parse, render
from hfray.serving.hf.schemas import output_schema
from tests.serving.hf.support import violations

LABELS = [{"label": "a", "score": 0.75}, {"label": "b", "score": 0.25}]
ENTITY = {"entity": "PER", "score": 0.9, "word": "Ada", "start": 0, "end": 3, "word_index": None, "word_tags": None}
SPAN = {"answer": "x", "score": 0.5, "start": 1, "end": 2}
TOKEN = {"token": 3, "token_str": "x", "score": 0.5, "sequence": "a x"}
QA = {"question": "q", "context": "c"}


def answer(task: str, body: Any, *results: Any, **own: Any) -> Any:
    """Rendered; the answer's schema must agree."""
    found = render(parse(task, body, Limits(), own), results, own)
    jsonschema.Draft202012Validator(output_schema(task)).validate(found)
    return found


def test_text_classification_has_a_list_for_each_input() -> None:
    assert answer("text-classification", {"inputs": "a"}, LABELS) == [LABELS]
    assert answer("text-classification", {"inputs": ["a", "b"]}, LABELS, LABELS[:1]) == [LABELS, LABELS[:1]]
    assert answer("text-classification", {"inputs": "a"}, []) == [[]]  # nothing above the endpoint's threshold


@pytest.mark.parametrize("task", ["zero-shot-classification"])
def test_other_labels(task: str) -> None:
    assert answer(task, {"inputs": "a"}, LABELS) == LABELS
    assert answer(task, {"inputs": ["a"]}, LABELS) == [LABELS]
    assert violations(answer(task, {"inputs": "a"}, LABELS), task, "output") == []


@pytest.mark.parametrize(
    ("parameters", "own", "key"),
    [
        ({}, {}, "entity_group"),
        ({"aggregation_strategy": "none"}, {}, "entity"),
        ({}, {"aggregation": "none"}, "entity"),
        ({"aggregation_strategy": "max"}, {"aggregation": "none"}, "entity_group"),
    ],
)
def test_entities(parameters: Any, own: Any, key: str) -> None:
    wanted = {key: "PER", "score": 0.9, "word": "Ada", "start": 0, "end": 3}
    body = {"inputs": "a", "parameters": parameters}
    found = answer("token-classification", body, [ENTITY], **own)
    assert found == [wanted]
    assert violations(found, "token-classification", "output") == []
    assert answer("token-classification", {**body, "inputs": ["a", "b"]}, [ENTITY], [], **own) == [[wanted], []]


def test_answers() -> None:
    task = "question-answering"
    assert answer(task, {"inputs": QA}, [SPAN]) == SPAN
    assert answer(task, {"inputs": QA}, []) == {"answer": "", "score": 0.0, "start": 0, "end": 0}
    assert answer(task, {"inputs": [QA, QA]}, [SPAN], [SPAN]) == [SPAN, SPAN]
    assert answer(task, {"inputs": QA, "parameters": {"top_k": 2}}, [SPAN, SPAN]) == [SPAN, SPAN]
    assert answer(task, {"inputs": QA}, [SPAN], top_k=3) == [SPAN]
    assert answer(task, {"inputs": QA, "parameters": {"top_k": 1}}, [SPAN], top_k=3) == SPAN
    assert answer(task, {"inputs": [QA], "parameters": {"top_k": 2}}, [SPAN, SPAN]) == [[SPAN, SPAN]]


def test_masks() -> None:
    token = {**TOKEN, "tokenStr": "x"}
    one = answer("fill-mask", {"inputs": "a"}, [[TOKEN, TOKEN]])
    assert one == [token, token]
    assert violations(one, "fill-mask", "output") == []
    assert answer("fill-mask", {"inputs": "a"}, [[TOKEN], [TOKEN]]) == [[token], [token]]
    assert answer("fill-mask", {"inputs": ["a", "b"]}, [[TOKEN]], [[TOKEN], [TOKEN]]) == [[token], [[token], [token]]]


def test_vectors() -> None:
    task, vector = "feature-extraction", [0.5, 0.25]
    assert answer(task, {"inputs": "a"}, vector) == [vector]
    assert answer(task, {"inputs": ["a", "b"]}, vector, vector) == [vector, vector]
    tokens = [vector, vector, vector]
    assert answer(task, {"inputs": "a"}, tokens) == tokens
    assert answer(task, {"inputs": ["a"]}, tokens) == [tokens]
    assert answer(task, {"inputs": "a", "dimensions": 2}, vector) == [vector]
    for result in (vector, tokens):
        with pytest.raises(RequestError, match="dimensions: the model's vectors have 2") as caught:
            answer(task, {"inputs": "a", "dimensions": 3}, result)
        assert caught.value.param == "dimensions"


def test_ranks() -> None:
    ranked = [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}]
    body = {"query": "q", "texts": ["a", "b"]}
    assert answer("text-ranking", body, ranked) == ranked
    repeated = answer("text-ranking", {**body, "return_text": True}, ranked)
    assert [each["text"] for each in repeated] == ["b", "a"]


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("summarization", "summary_text"),
        ("translation", "translation_text"),
        ("text2text-generation", "generated_text"),
    ],
)
def test_written_texts(task: str, key: str) -> None:
    assert answer(task, {"inputs": "a"}, "x") == [{key: "x"}]
    assert answer(task, {"inputs": ["a", "b"]}, "x", "y") == [{key: "x"}, {key: "y"}]
    two = [{key: "x"}, {key: "y"}]
    body = {"inputs": "a", "parameters": {"num_return_sequences": 2, "do_sample": True}}
    assert answer(task, body, ["x", "y"]) == two
    assert answer(task, {**body, "inputs": ["a", "b"]}, ["x", "y"], ["x", "y"]) == [two, two]
