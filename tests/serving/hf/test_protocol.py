"""What requests mean: rows and options, for the forms that clients and tutorials send."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from hfray.serving.hf.call import Call, Limits
from hfray.serving.hf.forms import FORMS
from hfray.serving.hf.protocol import parse, render
from hfray.serving.hf.schemas import example_input, input_schema
from hfray.tasks import TASKS

QA = {"question": "q", "context": "c"}


def call_of(task: str, body: Any, **own: Any) -> Call:
    """Parsed; the body's schema must agree that it is right."""
    jsonschema.Draft202012Validator(input_schema(task)).validate(body)
    call = parse(task, body, Limits(), own)
    TASKS[task].Options.model_validate({"name": task, **call.changes})
    assert all(set(TASKS[task].columns) <= row.keys() for row in call.rows)
    return call


@pytest.mark.parametrize("task", FORMS)
def test_nulls_and_the_classic_options_change_nothing(task: str) -> None:
    body = example_input(task)
    plain = call_of(task, body)
    classic = {"use_cache": False, "wait_for_model": True, "use_gpu": False}
    assert call_of(task, {**body, "options": classic}) == plain
    if "parameters" in body:
        fields = FORMS[task].body.model_validate(body).asked()[0]
        nulls = dict.fromkeys(type(fields).model_fields) | body["parameters"]
        assert call_of(task, {**body, "parameters": nulls}) == plain


@pytest.mark.parametrize("task", sorted(FORMS.keys() - {"text-ranking"}))
def test_without_parameters_nothing_is_changed(task: str) -> None:
    inputs = example_input(task)["inputs"]
    for body in ({"inputs": inputs}, {"inputs": inputs, "parameters": {}}, {"inputs": inputs, "parameters": None}):
        call = call_of(task, body)
        assert (call.changes, call.stream, call.adapter) == ({}, False, None)


@pytest.mark.parametrize(
    ("task", "inputs", "rows"),
    [
        ("text-classification", "a", [{"text": "a"}]),
        ("text-classification", {"text": "a", "text_pair": "b"}, [{"text": "a", "text_pair": "b"}]),
        ("text-classification", ["a", {"text": "b", "text_pair": "c"}],
         [{"text": "a"}, {"text": "b", "text_pair": "c"}]),
        ("token-classification", ["a", "b"], [{"text": "a"}, {"text": "b"}]),
        ("question-answering", QA, [QA]),
        ("question-answering", [QA, QA], [QA, QA]),
        ("fill-mask", "a [MASK]", [{"text": "a [MASK]"}]),
        ("sentence-similarity", {"source_sentence": "a", "sentences": ["b", "c"]},
         [{"text": "a", "text_pair": ("b", "c")}]),
        ("text-generation", "a", [{"prompt": "a"}]),
        ("text-generation", ["a"], [{"prompt": "a"}]),
        ("translation", ["a"], [{"text": "a"}]),
    ],
)  # fmt: skip
def test_inputs(task: str, inputs: Any, rows: list[Any]) -> None:
    call = call_of(task, {"inputs": inputs})
    assert list(call.rows) == rows
    assert call.many is isinstance(inputs, list)


@pytest.mark.parametrize(
    ("task", "parameters", "changes"),
    [
        ("text-classification", {"function_to_apply": "sigmoid", "top_k": 3}, {"function": "sigmoid", "top_k": 3}),
        ("token-classification", {"aggregation_strategy": "none", "ignore_labels": [], "stride": 16},
         {"aggregation": "none", "ignore_labels": (), "stride": 16}),
        ("question-answering",
         {"top_k": 2, "doc_stride": 32, "max_answer_len": 5, "max_seq_len": 128, "handle_impossible_answer": True,
          "align_to_words": True, "max_question_len": 64},
         {"top_k": 2, "doc_stride": 32, "max_answer_length": 5, "max_length": 128, "no_answer": True}),
        ("zero-shot-classification", {"hypothesis_template": "On {}.", "multi_label": True},
         {"hypothesis_template": "On {}.", "multi_label": True}),
        ("fill-mask", {"top_k": 3, "targets": ["a", "b"]}, {"top_k": 3, "targets": ("a", "b")}),
        ("feature-extraction", {"normalize": False, "prompt_name": "query", "truncate": True,
                                "truncation_direction": "right", "encoding_format": "float"},
         {"normalize": False, "prompt_name": "query"}),
        ("translation", {"src_lang": "en", "tgt_lang": "de"}, {"source_language": "en", "target_language": "de"}),
        ("summarization", {"min_length": 30, "max_length": 130, "do_sample": False, "truncation": "only_first"},
         {"min_new_tokens": 29, "max_new_tokens": 129, "temperature": 0.0}),
        ("summarization", {"generate_parameters": {"num_beams": 4, "length_penalty": 2, "early_stopping": True}},
         {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True}),
        ("summarization", {"max_length": 130, "max_new_tokens": 20}, {"max_new_tokens": 20}),
        ("text2text-generation", {"temperature": 0.5, "generate_parameters": {"seed": 3}},
         {"temperature": 0.5, "seed": 3}),
        ("text-generation",
         {"max_new_tokens": 9, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 4,
          "stop": ["\n"], "return_full_text": True, "watermark": False, "best_of": 1, "frequency_penalty": 0,
          "typical_p": 1, "decoder_input_details": False},
         {"max_new_tokens": 9, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 4,
          "stop": ("\n",), "return_full_text": True}),
        ("text-generation", {"details": True}, {"details": True, "logprobs": 0}),
        ("text-generation", {"details": True, "top_n_tokens": 2}, {"details": True, "logprobs": 2}),
        ("text-generation", {"details": False, "stop_sequences": ["x"]}, {"stop": ("x",)}),
        ("text-generation", {"truncate": 100}, {"max_length": 100, "truncation": "left"}),
        ("text-generation", {"num_return_sequences": 2, "do_sample": True, "no_repeat_ngram_size": 2, "min_p": 0.1},
         {"num_return_sequences": 2, "temperature": 1.0, "no_repeat_ngram_size": 2, "min_p": 0.1}),
    ],
)  # fmt: skip
def test_parameters(task: str, parameters: Any, changes: Any) -> None:
    inputs = QA if task == "question-answering" else "a"
    call = call_of(task, {"inputs": inputs, "parameters": parameters})
    assert call.changes == changes
    assert all(type(call.changes[name]) is type(value) for name, value in changes.items())


@pytest.mark.parametrize(
    ("parameters", "changes"),
    [
        ({"temperature": 1.0}, {"temperature": 1.0}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"do_sample": True}, {"temperature": 1.0}),
        ({"top_k": 5}, {"temperature": 1.0, "top_k": 5}),
        ({"top_p": 0.5}, {"temperature": 1.0, "top_p": 0.5}),
        ({"top_k": 0, "top_p": 1.0}, {"top_k": 0, "top_p": 1.0}),
        # What a well-known client sends for a greedy text.
        ({"do_sample": False, "temperature": 0.8, "top_p": 0.95, "typical_p": 0.95}, {"temperature": 0.0}),
    ],
)
def test_when_a_text_is_sampled(parameters: Any, changes: Any) -> None:
    for task in ("text-generation", "summarization"):
        assert call_of(task, {"inputs": "a", "parameters": parameters}).changes == changes


@pytest.mark.parametrize("labels", [["a", "b"], "a, b"])
def test_labels_are_a_column_so_that_other_labels_share_a_batch(labels: Any) -> None:
    call = call_of("zero-shot-classification", {"inputs": ["x", "y"], "parameters": {"candidate_labels": labels}})
    assert call.rows == ({"text": "x", "candidate_labels": ("a", "b")}, {"text": "y", "candidate_labels": ("a", "b")})
    assert call.changes == {}


def test_parameters_of_embeddings_stand_in_both_places() -> None:
    beside = call_of("feature-extraction", {"inputs": "a", "normalize": True, "prompt_name": None})
    assert beside == call_of("feature-extraction", {"inputs": "a", "parameters": {"normalize": True}})
    mixed = call_of("feature-extraction", {"inputs": "a", "dimensions": 2, "parameters": {"normalize": True}})
    assert (mixed.changes, mixed.form) == ({"normalize": True}, {"dimensions": 2})


@pytest.mark.parametrize(("raw", "changes"), [(None, {}), (True, {"function": "none"}), (False, {"function": "auto"})])
def test_ranking(raw: Any, changes: Any) -> None:
    call = call_of("text-ranking", {"query": "q", "texts": ["a", "b"], "raw_scores": raw, "truncate": True})
    assert (call.rows, call.changes, call.many) == (({"query": "q", "text": ("a", "b")},), changes, False)


def test_a_stream_asks_for_log_probabilities() -> None:
    call = call_of("text-generation", {"inputs": "a", "stream": True, "parameters": {"top_n_tokens": 2}})
    assert call.stream
    assert call.changes == {"logprobs": 2}
    assert not call_of("text-generation", {"inputs": "a", "stream": False}).stream
    assert not call_of("text2text-generation", {"inputs": "a", "stream": False}).stream


def test_an_adapter_is_handed_on() -> None:
    call = call_of("text-generation", {"inputs": "a", "parameters": {"adapter_id": "banking-1"}})
    assert (call.adapter, call.changes) == ("banking-1", {})


def test_a_refused_value_is_in_no_schema() -> None:
    validator = jsonschema.Draft202012Validator(input_schema("text-generation"))
    for name, value in (("watermark", True), ("best_of", 2), ("grammar", {}), ("max_length", 5), ("seed", -1)):
        assert not validator.is_valid({"inputs": "a", "parameters": {name: value}}), name


def test_results_and_rows_are_one_for_one() -> None:
    call = call_of("fill-mask", {"inputs": "a"})
    with pytest.raises(ValueError, match="0 results for 1 rows"):
        render(call, [])
