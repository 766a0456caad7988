"""Every refusal: which field, which status, and that it repeats nothing that a client sent but names."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from hfray.serving.errors import RequestError
from hfray.serving.hf.call import Limits
from hfray.serving.hf.forms import FORMS
from hfray.serving.hf.protocol import parse, parse_image
from hfray.spec.endpoint import LimitsSpec

LIMITS = Limits()
QA = {"question": "q", "context": "c"}


def refused(task: str, body: Any, limits: Limits = LIMITS, **own: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(task, body, limits, own)
    error = caught.value
    assert error.status in (413, 422)
    if error.param:
        assert error.message.startswith(f"{error.param}: ")
    return error


@pytest.mark.parametrize("body", [None, [], "text", 3, True])
@pytest.mark.parametrize("task", FORMS)
def test_a_body_is_an_object(task: str, body: Any) -> None:
    assert "not a JSON object" in refused(task, body).message


@pytest.mark.parametrize("task", FORMS)
def test_something_must_be_asked(task: str) -> None:
    error = refused(task, {})
    assert error.param == ("query" if task == "text-ranking" else "inputs")
    assert "is missing" in error.message


@pytest.mark.parametrize("value", [None, 3, True, 1.5, [], [3], [None], {}, {"text": 3}, [[]]])
@pytest.mark.parametrize("task", sorted(FORMS.keys() - {"text-ranking"}))
def test_inputs_of_another_type(task: str, value: Any) -> None:
    assert (refused(task, {"inputs": value}).param or "").startswith("inputs")


@pytest.mark.parametrize(
    ("task", "body", "param", "words"),
    [
        ("text-classification", {"input": "a"}, "inputs", "missing"),
        ("text-classification", {"inputs": "a", "parameter": {}}, "parameter", "did you mean parameters?"),
        ("text-classification", {"inputs": "a", "parameters": []}, "parameters", "an object"),
        ("text-classification", {"inputs": "a", "parameters": {"topk": 1}}, "parameters.topk", "did you mean top_k?"),
        ("text-classification", {"inputs": "a", "options": {"use_cash": True}}, "options.use_cash", "mean use_cache?"),
        ("text-classification", {"inputs": "a", "options": {"use_cache": 1}}, "options.use_cache", "true or false"),
        ("text-classification", {"inputs": []}, "inputs", "is empty"),
        ("text-classification", {"inputs": ["a", 3]}, "inputs[1]", "text or an object"),
        ("text-classification", {"inputs": {"text": "a", "text_par": "b"}}, "inputs.text_pair", "missing"),
        ("text-classification", {"inputs": "a", "stream": True}, "stream", "not known"),
        ("summarization", {"inputs": "a", "stream": False}, "stream", "not known"),
        ("text2text-generation", {"inputs": "a", "stream": True}, "stream", "give false"),
        ("text2text-generation", {"inputs": "a", "stream": 0}, "stream", "true or false"),
        ("question-answering", {"inputs": {"question": "q"}}, "inputs.context", "missing"),
        ("question-answering", {"inputs": [QA, {"context": "c"}]}, "inputs[1].question", "missing"),
        ("sentence-similarity", {"inputs": {"source_sentence": "a", "sentences": "b"}}, "inputs.sentences", "a list"),
        ("sentence-similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, "inputs.sentences", "empty"),
        ("sentence-similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {"k": 1}},
         "parameters.k", "not known"),
        ("text-ranking", {"inputs": "a"}, "query", "missing"),
        ("text-ranking", {"query": "a", "texts": []}, "texts", "empty"),
        ("text-ranking", {"query": "a", "texts": ["b"], "raw_score": True}, "raw_score", "mean raw_scores?"),
        ("text-generation", {"inputs": ["a", "b"], "stream": True}, "stream", "not a list"),
        ("text-generation", {"inputs": "a", "stream": 1}, "stream", "true or false"),
        ("text-generation",
         {"inputs": "a", "stream": True, "parameters": {"num_return_sequences": 2, "do_sample": True}},
         "stream", "num_return_sequences"),
        ("feature-extraction", {"inputs": "a", "normalise": True}, "normalise", "mean normalize?"),
        ("feature-extraction", {"inputs": "a", "normalize": True, "parameters": {"normalize": True}}, "normalize",
         "twice"),
    ],
)  # fmt: skip
def test_fields(task: str, body: Any, param: str, words: str) -> None:
    error = refused(task, body)
    assert (error.param, error.status) == (param, 422)
    assert words in error.message


TEXT = "a"
PARAMETERS = [
    ("text-classification", "top_k", True, "whole number"),
    ("text-classification", "top_k", "1", "whole number"),
    ("text-classification", "top_k", 1.0, "whole number"),
    ("text-classification", "top_k", 0, "at least 1"),
    ("text-classification", "function_to_apply", "relu", "'softmax'"),
    ("token-classification", "aggregation_strategy", "all", "'simple'"),
    ("token-classification", "stride", 129, "at most 128"),
    ("token-classification", "ignore_labels", "O", "a list"),
    ("question-answering", "top_k", 101, "at most 100"),
    ("question-answering", "doc_stride", 129, "at most 128"),
    ("question-answering", "max_seq_len", 63, "at least 64"),
    ("question-answering", "max_question_len", 32, "leave it out, or give 64"),
    ("question-answering", "align_to_words", False, "leave it out, or give true"),
    ("zero-shot-classification", "candidate_labels", [], "empty"),
    ("zero-shot-classification", "candidate_labels", ["a", "a"], "twice"),
    ("zero-shot-classification", "candidate_labels", ["a", " "], "empty"),
    ("zero-shot-classification", "candidate_labels", " , ", "no label"),
    ("zero-shot-classification", "candidate_labels", [str(each) for each in range(257)], "at most 256"),
    ("zero-shot-classification", "hypothesis_template", "about", "no {}"),
    ("zero-shot-classification", "multi_label", 1, "true or false"),
    ("fill-mask", "top_k", 101, "at most 100"),
    ("fill-mask", "targets", ["a"] * 101, "at most 100"),
    ("feature-extraction", "truncate", False, "give true"),
    ("feature-extraction", "truncation_direction", "left", "give right"),
    ("feature-extraction", "encoding_format", "base64", "give float"),
    ("feature-extraction", "dimensions", 0, "at least 1"),
    ("summarization", "clean_up_tokenization_spaces", True, "give false"),
    ("summarization", "truncation", "do_not_truncate", "longest_first or only_first"),
    ("summarization", "num_beams", 9, "at most 8"),
    ("summarization", "early_stopping", "never", "true or false"),
    ("summarization", "max_length", 4098, "at most 4,097"),
    ("summarization", "penalty_alpha", 0.6, "give 0"),
    ("summarization", "num_beam_groups", 2, "give 1"),
    ("summarization", "epsilon_cutoff", 0.1, "give 0"),
    ("summarization", "eta_cutoff", 0.1, "give 0"),
    ("summarization", "typical_p", 0.5, "top_p"),
    ("translation", "source_language", "en", "mean src_lang?"),
    ("translation", "tgt_lang", "", "empty"),
    ("text-generation", "watermark", True, "give false"),
    ("text-generation", "grammar", {"type": "regex", "value": "(a+)+$"}, "leave it out"),
    ("text-generation", "best_of", 2, "num_return_sequences"),
    ("text-generation", "decoder_input_details", True, "give false"),
    ("text-generation", "frequency_penalty", 0.1, "repetition_penalty"),
    ("text-generation", "typical_p", 0.95, "top_p"),
    ("text-generation", "max_length", 50, "max_new_tokens"),
    ("text-generation", "max_time", 1.0, "deadline"),
    ("text-generation", "num_beams", 2, "give 1"),
    ("text-generation", "max_new_tokens", 0, "at least 1"),
    ("text-generation", "max_new_tokens", 4097, "at most 4,096"),
    ("text-generation", "min_new_tokens", 4097, "at most 4,096"),
    ("text-generation", "num_return_sequences", 9, "at most 8"),
    ("text-generation", "stop", ["a"] * 5, "at most 4"),
    ("text-generation", "stop", ["a" * 65], "at most 64"),
    ("text-generation", "stop", [""], "empty"),
    ("text-generation", "stop", "a", "a list"),
    ("text-generation", "top_n_tokens", 21, "at most 20"),
    ("text-generation", "top_p", 0, "above 0"),
    ("text-generation", "top_p", 1.1, "at most 1"),
    ("text-generation", "temperature", -1, "at least 0"),
    ("text-generation", "temperature", True, "a number"),
    ("text-generation", "seed", -1, "at least 0"),
    ("text-generation", "truncate", 3, "at least 4"),
    ("text-generation", "adapter_id", "../other", "text like"),
]


@pytest.mark.parametrize(("task", "name", "value", "words"), PARAMETERS)
def test_parameters(task: str, name: str, value: Any, words: str) -> None:
    inputs = QA if task == "question-answering" else TEXT
    error = refused(task, {"inputs": inputs, "parameters": {name: value}})
    assert (error.param or "").startswith(f"parameters.{name}")
    assert words in error.message


def test_parameters_beside_inputs_are_named_without_a_prefix() -> None:
    assert refused("feature-extraction", {"inputs": "a", "truncate": False}).param == "truncate"
    assert refused("text-ranking", {"query": "a", "texts": ["b"], "truncate": False}).param == "truncate"


@pytest.mark.parametrize(
    ("task", "parameters", "words"),
    [
        ("text-generation", {"do_sample": True, "temperature": 0}, "do_sample"),
        ("text-generation", {"max_new_tokens": 3, "min_new_tokens": 5}, "is over"),
        ("text-generation", {"num_return_sequences": 2}, "temperature above 0"),
        ("text-generation", {"temperature": 1e-4}, "too close to 0"),
        ("text-generation", {"stop": ["a"], "stop_sequences": ["a"]}, "twice"),
        ("summarization", {"num_beams": 4, "temperature": 0.5}, "do_sample: false"),
        ("summarization", {"max_length": 10, "min_length": 50}, "is over"),
        ("summarization", {"max_new_tokens": 4, "generate_parameters": {"max_new_tokens": 5}}, "twice"),
        ("summarization", {"generate_parameters": {"max_new_token": 5}}, "did you mean max_new_tokens?"),
        ("question-answering", {"doc_stride": 100, "max_seq_len": 128}, "half of max_seq_len"),
    ],
)
def test_parameters_that_do_not_go_together(task: str, parameters: Any, words: str) -> None:
    inputs = QA if task == "question-answering" else TEXT
    assert words in refused(task, {"inputs": inputs, "parameters": parameters}).message


def test_the_endpoints_own_options_count() -> None:
    error = refused("summarization", {"inputs": "a", "parameters": {"temperature": 0.5}}, num_beams=4)
    assert "beam search does not sample" in error.message
    refused("text-generation", {"inputs": "a", "stream": True}, num_return_sequences=2, temperature=1.0)


@pytest.mark.parametrize("text", ["a\ud800", "\udfff", "a\x00b"])
@pytest.mark.parametrize("place", ["inputs", "parameters", "key"])
def test_text_is_unicode(text: str, place: str) -> None:
    body: Any = {"inputs": "a", "parameters": {"stop": ["b"]}}
    if place == "key":
        body[text] = 1
    else:
        body[place] = [text] if place == "inputs" else {"stop": [text]}
    error = refused("text-generation", body)
    error.message.encode("utf-8")
    assert "surrogate" in error.message or "NUL" in error.message


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 2**63, -(2**63) - 1, 10**4000])
def test_numbers_are_finite(number: Any) -> None:
    error = refused("text-generation", {"inputs": "a", "parameters": {"temperature": number}})
    assert error.param == "parameters.temperature"


def test_depth() -> None:
    value: Any = "a"
    for _ in range(50_000):
        value = [value]
    assert "nests" in refused("text-classification", {"inputs": value}).message


def test_each_cap_and_one_below() -> None:
    limits = Limits(max_inputs=3, max_items=6, max_chars=14)
    parse("fill-mask", {"inputs": ["a"] * 3}, limits)
    assert refused("fill-mask", {"inputs": ["a"] * 4}, limits).param == "inputs"
    parse("fill-mask", {"inputs": "a" * 14}, limits)
    assert refused("fill-mask", {"inputs": "a" * 15}, limits).param == "inputs"
    ranked = {"query": "", "texts": ["a"] * 6}
    parse("text-ranking", ranked, Limits(max_items=6))
    assert refused("text-ranking", {**ranked, "texts": ["a"] * 7}, Limits(max_items=6)).param == "texts"
    labels = {"candidate_labels": ["a", "b"]}
    small = Limits(max_items=6)
    parse("zero-shot-classification", {"inputs": ["a"] * 3, "parameters": labels}, small)
    error = refused("zero-shot-classification", {"inputs": ["a"] * 4, "parameters": labels}, small)
    assert "8 model inputs" in error.message
    several = {"num_return_sequences": 2, "do_sample": True}
    parse("text-generation", {"inputs": ["a"] * 3, "parameters": several}, small)
    refused("text-generation", {"inputs": ["a"] * 4, "parameters": several}, small)


def test_tokens_of_all_texts_together() -> None:
    limits = Limits(max_total_tokens=80)
    asked = {"inputs": ["a", "b"], "parameters": {"max_new_tokens": 20, "num_return_sequences": 2, "do_sample": True}}
    parse("text-generation", asked, limits)
    error = refused("text-generation", {**asked, "inputs": ["a", "b", "c"]}, limits)
    assert "120 tokens" in error.message
    refused("summarization", {"inputs": "a"}, limits)  # by default 256
    parse("summarization", {"inputs": "a"}, limits, {"max_new_tokens": 80})


def test_the_limits_of_an_endpoint() -> None:
    limits = Limits.of(LimitsSpec(max_inputs=500, max_chars=7, max_body_bytes=2048))
    assert (limits.max_inputs, limits.max_items, limits.max_chars, limits.max_image_bytes) == (500, 500, 7, 20480)
    assert Limits.of(LimitsSpec()).max_items == Limits().max_items


def test_long_texts_are_refused_before_fields_are_looked_at() -> None:
    error = refused("fill-mask", {"inputs": 3, "nonsense": "a" * 100}, Limits(max_chars=50))
    assert error.param == "nonsense"
    assert "may have 50" in error.message


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9/cat.png", "HTTPS://example.org/a", "ftp://a/b", "file:///etc/passwd", "s3://b/k",
        "javascript:alert(1)", "/etc/passwd", "../cat.png", "cat.png", "//host/a.png", "data:text/html,hello",
        "data:image/png,hello", "data:", "data:image/png;base64,@@", "", "a",
    ],
)  # fmt: skip
@pytest.mark.parametrize("many", [False, True])
def test_nothing_is_opened(address: str, many: bool) -> None:
    error = refused("image-classification", {"inputs": [address] if many else address})
    assert (error.param or "").startswith("inputs")
    assert address not in error.message or len(address) < 2 or address == "data:"


def test_images_of_the_wrong_kind() -> None:
    def inputs(data: bytes) -> dict[str, Any]:
        return {"inputs": base64.b64encode(data).decode()}

    assert "no image that can be read" in refused("image-classification", inputs(b"<svg></svg>")).message
    with pytest.raises(RequestError, match="the body is no image"):
        parse_image("image-classification", b"GIF89a", LIMITS)
    with pytest.raises(RequestError, match="takes no images") as caught:
        parse_image("fill-mask", b"GIF89a", LIMITS)
    assert caught.value.status == 415
