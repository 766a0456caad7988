from __future__ import annotations

import pyarrow as pa
import pytest
from transformers import pipeline

from hfray.errors import DataError, RowError, SpecError
from hfray.tasks.text_classification import TextClassification
from tests.tasks.support import (
    TEXTS,
    answer,
    bert_config,
    bert_tokenizer,
    distilbert_config,
    make_task,
    roberta_config,
    roberta_tokenizer,
    stored_tokenizer,
    tiny_model,
    truncated,
)

LABELS = ("bad", "fair", "good", "great")


def model_of(labels=LABELS, **changes):
    return tiny_model(TextClassification.auto_model, bert_config(labels=labels, **changes))


def assert_same(results, expected):
    for found, wanted in zip(results, expected, strict=True):
        assert [each["label"] for each in found] == [each["label"] for each in wanted]
        assert [each["score"] for each in found] == pytest.approx([each["score"] for each in wanted], abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "problem_type"),
    [
        (LABELS, None),
        (LABELS, "single_label_classification"),
        (LABELS, "multi_label_classification"),
        (LABELS, "regression"),
        (("score",), None),
        (("score",), "regression"),
    ],
)
def test_scores_are_those_of_the_pipeline(labels, problem_type):
    model = model_of(labels, problem_type=problem_type)
    task = make_task(TextClassification, model, top_k="all")
    theirs = pipeline("text-classification", model=model, tokenizer=bert_tokenizer())
    expected = [theirs(text, top_k=None, truncation=True) for text in TEXTS]
    assert_same(answer(task, model, [{"text": text} for text in TEXTS]), expected)


@pytest.mark.parametrize("architecture", ["distilbert", "roberta"])
def test_other_architectures(architecture):
    if architecture == "roberta":
        tokenizer = roberta_tokenizer()
        config = roberta_config(len(tokenizer), labels=LABELS)
    else:
        tokenizer = stored_tokenizer(
            "distilbert-base-uncased", model_max_length=64, model_input_names=["input_ids", "attention_mask"]
        )
        config = distilbert_config(labels=LABELS)
    model = tiny_model(TextClassification.auto_model, config)
    theirs = pipeline("text-classification", model=model, tokenizer=tokenizer)
    task = make_task(TextClassification, model, tokenizer, info={"max_length": 64}, top_k="all")
    rows = [{"text": text} for text in TEXTS] + [{"text": text, "text_pair": "a pair"} for text in TEXTS[:3]]
    assert_same(answer(task, model, rows), [theirs(dict(row), top_k=None, truncation=True) for row in rows])


def test_pairs_and_single_texts_keep_their_order():
    model = model_of()
    theirs = pipeline("text-classification", model=model, tokenizer=bert_tokenizer())
    rows = [
        {"text": "one"},
        {"text": "two", "text_pair": "2"},
        {"text": "three"},
        {"text": "four", "text_pair": "今天"},
    ]
    expected = [theirs(dict(row), top_k=None, truncation=True) for row in rows]
    assert_same(answer(make_task(TextClassification, model, top_k="all"), model, rows), expected)


def test_one_label_by_default_and_top_k():
    model = model_of()
    (best,) = answer(make_task(TextClassification, model), model, [{"text": "fine"}])
    (two,) = answer(make_task(TextClassification, model, top_k=2), model, [{"text": "fine"}])
    assert len(best) == 1
    assert len(two) == 2
    assert two[0] == best[0]
    assert two[0]["score"] > two[1]["score"]


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_function_overrides(function):
    model = model_of()
    theirs = pipeline("text-classification", model=model, tokenizer=bert_tokenizer())
    expected = [theirs("fine", top_k=None, function_to_apply=function)]
    task = make_task(TextClassification, model, top_k="all", function=function)
    assert_same(answer(task, model, [{"text": "fine"}]), expected)


def test_options_of_a_request_replace_the_jobs():
    model = model_of()
    task = make_task(TextClassification, model)
    request = TextClassification.Options(top_k="all", function="none", max_length=4)
    job = make_task(TextClassification, model, top_k="all", function="none", max_length=4)
    rows = [{"text": TEXTS[3]}]
    assert answer(task, model, rows, request) == answer(job, model, rows)
    assert len(answer(task, model, rows)[0]) == 1


def test_threshold_keeps_what_is_above_it_even_if_that_is_nothing():
    model = model_of(problem_type="multi_label_classification")
    everything = answer(make_task(TextClassification, model, top_k="all"), model, [{"text": "fine"}])[0]
    threshold = everything[1]["score"]
    assert answer(make_task(TextClassification, model, threshold=threshold), model, [{"text": "fine"}]) == [
        everything[:1]
    ]
    nothing = make_task(TextClassification, model, threshold=0.9999)
    (empty,) = answer(nothing, model, [{"text": "fine"}])
    assert empty == []
    assert nothing.summarize(empty).label is None


def test_labels_override_the_models_own():
    model = model_of()
    (result,) = answer(make_task(TextClassification, model, labels=list("wxyz"), top_k="all"), model, [{"text": "a"}])
    assert {each["label"] for each in result} == set("wxyz")
    assert make_task(TextClassification, model).summarize(result).label == result[0]["label"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "b"]}, "task.labels has 2 names, but model tiny has 4 labels (bad, fair, good, great)"),
        ({"labels": ["a", "a", "b", "c"]}, "names a label twice"),
        ({"threshold": 0.5}, "multi-label"),
    ],
)
def test_options_that_do_not_fit_the_model(options, message):
    with pytest.raises(SpecError) as caught:
        make_task(TextClassification, model_of(), **options)
    assert message in str(caught.value)


def test_a_model_without_labels_is_refused():
    with pytest.raises(SpecError, match="names no labels"):
        make_task(TextClassification, model_of(), info={"labels": ()})


def test_bad_rows_carry_their_reason_and_the_others_are_scored():
    model = model_of()
    rows = [
        {"text": "fine"},
        {"text": None},
        {"text": 5},
        {"other": "x"},
        {"text": "\ud800"},
        {"text": "fine", "text_pair": None},
        {"text": "fine"},
    ]
    results = answer(make_task(TextClassification, model), model, rows)
    types = [each.type if isinstance(each, RowError) else None for each in results]
    assert types == [None, "NullText", "WrongType", "MissingColumn", "InvalidText", "NullText", None]
    assert results[0] == results[-1]


def test_results_fit_the_arrow_type_and_come_back_equal():
    model = model_of()
    task = make_task(TextClassification, model, top_k="all")
    results = answer(task, model, [{"text": text} for text in TEXTS])
    assert pa.array(results, task.result_type()).to_pylist() == results


def single(label):
    return [{"label": label, "score": 0.9}]


def test_single_label_metrics_take_names_indices_and_digits():
    task = make_task(TextClassification, model_of())
    results = [single("bad"), single("fair"), single("good"), single("good")]
    assert task.metrics(results, ["bad", 1, "2", "great"]) == pytest.approx(
        {"accuracy": 0.75, "macro_f1": (1 + 1 + 2 / 3 + 0) / 4}
    )


@pytest.mark.parametrize("reference", ["terrible", 4, -1, "9", None, True, 1.5, ["bad"]])
def test_a_wrong_reference_is_named(reference):
    with pytest.raises(DataError) as caught:
        make_task(TextClassification, model_of()).metrics([single("bad")], [reference])
    assert repr(reference) in str(caught.value)
    assert "'great'" in str(caught.value)


def test_multi_label_metrics():
    task = make_task(TextClassification, model_of(problem_type="multi_label_classification"), top_k="all")
    results = [
        [{"label": "bad", "score": 0.9}, {"label": "fair", "score": 0.6}, {"label": "good", "score": 0.2}],
        [{"label": "good", "score": 0.7}, {"label": "bad", "score": 0.4}],
    ]
    # True positives: bad, good; false positive: fair; false negative: bad in the second row.
    assert task.metrics(results, [["bad"], ["good", 0]]) == pytest.approx(
        {"micro_f1": 4 / 6, "macro_f1": (2 / 3 + 0 + 1) / 3, "subset_accuracy": 0.0}
    )
    hidden = make_task(TextClassification, model_of(problem_type="multi_label_classification"))
    with pytest.raises(SpecError, match="top_k: all"):
        hidden.metrics(results, [["bad"], ["good"]])


def test_regression_metrics():
    task = make_task(TextClassification, model_of(("score",), problem_type="regression"))
    results = [[{"label": "score", "score": value}] for value in (1.0, 2.0, 4.0)]
    assert task.metrics(results, [10, "20", 40.0]) == pytest.approx({"pearson": 1.0, "spearman": 1.0})
    with pytest.raises(DataError, match="'much'"):
        task.metrics(results, [1, 2, "much"])
    with pytest.raises(SpecError, match="4 outputs"):
        make_task(TextClassification, model_of(problem_type="regression")).metrics([single("bad")], [1])


def test_rows_that_lose_text_are_known():
    task = make_task(TextClassification, model_of())
    rows = [{"text": "word " * num} for num in (62, 63)]
    pairs = [{"text": "word " * 60, "text_pair": pair} for pair in ("a", "a b")]
    assert truncated(task, *rows, *pairs) == [False, True, False, True]
    task = make_task(TextClassification, model_of(), max_chars=20, over_max_chars="truncate")
    rows = [{"text": "x" * num} for num in (20, 21)]
    assert truncated(task, *rows, {"text": "x", "text_pair": "y" * 21}) == [False, True, True]
