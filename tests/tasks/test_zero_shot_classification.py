from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from transformers import pipeline

from hfray.errors import DataError, RowError, SpecError
from hfray.tasks.zero_shot_classification import ZeroShotClassification
from tests.tasks.support import TEXTS, answer, bert_config, bert_tokenizer, make_task, tiny_model, truncated

NLI = ("contradiction", "neutral", "entailment")
CANDIDATES = ("sport", "money", "天气", "a rather long label")
FULL_TEXTS = tuple(text for text in TEXTS if text)


def model_of(labels=NLI):
    return tiny_model(ZeroShotClassification.auto_model, bert_config(labels=labels))


def assert_same(result, expected):
    assert [each["label"] for each in result] == expected["labels"]
    assert [each["score"] for each in result] == pytest.approx(expected["scores"], abs=1e-5)


@pytest.mark.parametrize("labels", [NLI, ("Entailment", "neutral", "contradiction"), ("not", "ENTAILED")])
@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_are_those_of_the_pipeline(labels, multi_label):
    model = model_of(labels)
    theirs = pipeline("zero-shot-classification", model=model, tokenizer=bert_tokenizer())
    task = make_task(ZeroShotClassification, model, candidate_labels=CANDIDATES, multi_label=multi_label)
    results = answer(task, model, [{"text": text} for text in FULL_TEXTS])
    for text, result in zip(FULL_TEXTS, results, strict=True):
        assert_same(result, theirs(text, candidate_labels=list(CANDIDATES), multi_label=multi_label))


def test_one_label_is_scored_against_contradiction_and_the_template_is_used():
    model = model_of()
    theirs = pipeline("zero-shot-classification", model=model, tokenizer=bert_tokenizer())
    template = "It is about {}!"
    task = make_task(ZeroShotClassification, model, candidate_labels=["sport"], hypothesis_template=template)
    (result,) = answer(task, model, [{"text": "a goal"}])
    assert_same(result, theirs("a goal", candidate_labels=["sport"], hypothesis_template=template))


def test_a_rows_own_labels_go_first():
    model = model_of()
    task = make_task(ZeroShotClassification, model, candidate_labels=["x", "y"])
    rows = [
        {"text": "t", "candidate_labels": ["a", "b", "c"]},
        {"text": "t", "candidate_labels": "d, e"},
        {"text": "t", "candidate_labels": None},
        {"text": "t"},
    ]
    results = answer(task, model, rows)
    assert [{each["label"] for each in result} for result in results] == [set("abc"), set("de"), set("xy"), set("xy")]
    assert pa.array(results, task.result_type()).to_pylist() == results
    for result in results:
        assert sum(each["score"] for each in result) == pytest.approx(1)


def test_only_the_premise_is_cut():
    task = make_task(ZeroShotClassification, model_of(), candidate_labels=["sport"])
    (encoded,) = task.encode([{"text": "very long " * 300}])
    ids = encoded.items[0].inputs["input_ids"]
    assert len(ids) == 64
    assert bert_tokenizer().decode(ids).endswith("[SEP] this example is sport. [SEP]")


def test_a_hypothesis_longer_than_the_model_fails_its_row_only():
    model = model_of()
    task = make_task(ZeroShotClassification, model, candidate_labels=["sport"])
    results = answer(task, model, [{"text": "a"}, {"text": "a", "candidate_labels": ["word " * 100]}, {"text": "a"}])
    assert isinstance(results[1], RowError)
    assert results[0] == results[2]


@pytest.mark.parametrize(
    ("row", "type_"),
    [
        ({"text": ""}, "EmptyText"),
        ({"text": "t", "candidate_labels": []}, "NoLabels"),
        ({"text": "t", "candidate_labels": " , "}, "NoLabels"),
        ({"text": "t"}, "NoLabels"),
        ({"text": "t", "candidate_labels": 5}, "WrongType"),
        ({"text": "t", "candidate_labels": ["a", None]}, "NullText"),
        ({"text": "t", "candidate_labels": ["a", "a"]}, "RepeatedLabel"),
    ],
)
def test_bad_rows(row, type_):
    (encoded,) = make_task(ZeroShotClassification, model_of()).encode([row])
    assert isinstance(encoded, RowError)
    assert encoded.type == type_


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (("a", "b"), {}, '"entail" and one against it; model tiny has the labels a, b'),
        (("entailment",), {}, "one against it"),
        (NLI, {"hypothesis_template": "about"}, "no {}"),
        (NLI, {"candidate_labels": ["a", "a"]}, "twice"),
        (NLI, {"candidate_labels": ["a", " "]}, "empty"),
    ],
)
def test_what_cannot_work_is_refused(labels, options, message):
    with pytest.raises(SpecError) as caught:
        make_task(ZeroShotClassification, model_of(labels), **options)
    assert message in str(caught.value)


def test_a_template_is_text_and_never_a_format_string():
    task = make_task(ZeroShotClassification, model_of(), candidate_labels=["sport"])
    request = task.Options(candidate_labels=["sport"], hypothesis_template="{0.__class__} {:>99999999} {}")
    (encoded,) = task.encode([{"text": "a"}], request)
    words = bert_tokenizer().decode(encoded.items[0].inputs["input_ids"])
    assert "sport" in words
    assert "class" in words
    assert "str" not in words


def test_metrics():
    task = make_task(ZeroShotClassification, model_of(), candidate_labels=["x", "y"])
    results = [[{"label": "x", "score": 0.8}, {"label": "y", "score": 0.2}]] * 4
    assert task.metrics(results, ["x", 0, "1", "z"]) == pytest.approx(
        {"accuracy": 0.5, "macro_f1": (2 * 2 / (2 * 2 + 2) + 0 + 0) / 3}
    )
    with pytest.raises(DataError, match="not the index"):
        task.metrics(results[:1], [2])
    several = make_task(ZeroShotClassification, model_of(), candidate_labels=["x", "y"], multi_label=True)
    assert several.metrics(results[:2], [["x"], np.array([0, 1])]) == pytest.approx(
        {"micro_f1": 0.8, "macro_f1": 0.5, "subset_accuracy": 0.5}
    )


def test_rows_that_lose_text_are_known():
    # [CLS] text [SEP] This example is x. [SEP]: 5 tokens for the hypothesis, 56 for the text.
    task = make_task(ZeroShotClassification, model_of(), candidate_labels=["x", "y"])
    assert truncated(task, *({"text": "word " * num} for num in (56, 57))) == [False, True]
    task = make_task(ZeroShotClassification, model_of(), max_chars=20, over_max_chars="truncate")
    rows = [{"text": "word", "candidate_labels": ["a", "b" * num]} for num in (20, 21)]
    assert truncated(task, *rows) == [False, True]
