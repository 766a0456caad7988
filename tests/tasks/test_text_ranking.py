from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pytest

from hfray.errors import DataError, RowError, SpecError
from hfray.tasks.text_ranking import TextRanking
from tests.tasks.support import TEXTS, answer, bert_config, bert_tokenizer, make_task, tiny_model, truncated

QUERY = "how do I get a card?"


def model_of(labels=("relevance",)):
    return tiny_model(TextRanking.auto_model, bert_config(labels=labels))


def scores_of(result):
    return [each["score"] for each in sorted(result, key=lambda each: each["index"])]


@pytest.fixture
def theirs(tmp_path):
    """sentence-transformers' CrossEncoder over a stored copy of a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # imports of the other side
        from sentence_transformers import CrossEncoder

    def load(model):
        model.save_pretrained(tmp_path)
        bert_tokenizer().save_pretrained(tmp_path)
        return CrossEncoder(str(tmp_path), device="cpu", local_files_only=True)

    return load


def test_scores_are_those_of_the_cross_encoder(theirs):
    model = model_of()
    encoder = theirs(model)
    (result,) = answer(make_task(TextRanking, model), model, [{"query": QUERY, "text": list(TEXTS)}])
    expected = encoder.predict([(QUERY, text) for text in TEXTS])
    assert scores_of(result) == pytest.approx(expected.tolist(), abs=1e-5)
    ranking = [each["corpus_id"] for each in encoder.rank(QUERY, list(TEXTS))]
    assert [each["index"] for each in result] == ranking


def test_function_none_gives_logits():
    model = model_of()
    rows = [{"query": QUERY, "text": list(TEXTS)}]
    (probabilities,) = answer(make_task(TextRanking, model), model, rows)
    (logits,) = answer(make_task(TextRanking, model, function="none"), model, rows)
    assert 1 / (1 + np.exp(-np.array(scores_of(logits)))) == pytest.approx(np.array(scores_of(probabilities)), abs=1e-6)


def test_one_text_gives_one_entry_and_rows_do_not_mix():
    model = model_of()
    rows = [
        {"query": QUERY, "text": "one"},
        {"query": QUERY, "text": ["two", "one", "three"]},
        {"query": "another", "text": ["one"]},
    ]
    task = make_task(TextRanking, model)
    results = answer(task, model, rows)
    assert [len(result) for result in results] == [1, 3, 1]
    assert results[0] == [{"index": 0, "score": scores_of(results[1])[1]}]
    assert results[2][0]["score"] != results[0][0]["score"]
    assert pa.array(results, task.result_type()).to_pylist() == results
    assert task.summarize(results[1]).score == max(scores_of(results[1]))


def test_a_label_of_several_and_a_request_with_another():
    model = model_of(("no", "yes"))
    rows = [{"query": QUERY, "text": list(TEXTS)}]
    task = make_task(TextRanking, model, label="yes")
    (yes,) = answer(task, model, rows)
    (no,) = answer(task, model, rows, TextRanking.Options(label="no"))
    assert np.array(scores_of(yes)) + np.array(scores_of(no)) == pytest.approx(1)
    assert [each["index"] for each in yes] == [each["index"] for each in reversed(no)]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (("no", "yes"), {}, "has 2 labels (no, yes)"),
        (("no", "yes"), {"label": "maybe"}, "'maybe' is not a label of model tiny; it has no, yes"),
        (("score",), {"label": "yes"}, "it has score"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(labels, options, message):
    with pytest.raises(SpecError) as caught:
        make_task(TextRanking, model_of(labels), **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "type_"),
    [
        ({"query": None, "text": "a"}, "NullText"),
        ({"query": "a"}, "MissingColumn"),
        ({"query": "a", "text": []}, "NoTexts"),
        ({"query": "a", "text": ["a", None]}, "NullText"),
        ({"query": "a", "text": 5}, "WrongType"),
    ],
)
def test_bad_rows(row, type_):
    model = model_of()
    good = {"query": "a", "text": "b"}
    results = answer(make_task(TextRanking, model), model, [good, row, good])
    assert isinstance(results[1], RowError)
    assert results[1].type == type_
    assert results[0] == results[2]


def test_metrics():
    task = make_task(TextRanking, model_of())
    ranked = [[{"index": index, "score": 0.5} for index in order] for order in ([2, 0, 1], [1, 0])]
    ideal = 3 / np.log2(2) + 1 / np.log2(3)
    assert task.metrics(ranked, [0, [3, 1]]) == pytest.approx(
        {"mrr@10": (0.5 + 1) / 2, "ndcg@10": (1 / np.log2(3) + (1 + 3 / np.log2(3)) / ideal) / 2}
    )
    assert task.metrics(ranked[:1], ["2"])["mrr@10"] == 1


@pytest.mark.parametrize("reference", [3, -1, "x", None, True, 1.0, [1, 0], [1, 0, "x"]])
def test_a_wrong_reference_is_named(reference):
    result = [{"index": index, "score": 0.5} for index in range(3)]
    with pytest.raises(DataError, match="reference"):
        make_task(TextRanking, model_of()).metrics([result], [reference])


def test_rows_that_lose_text_are_known():
    # [CLS] query [SEP] text [SEP]: one token for the query, 60 for a text.
    texts = ["word " * num for num in (60, 61)]
    task = make_task(TextRanking, model_of())
    rows = [{"query": "card", "text": text} for text in (texts[0], texts[1], texts, texts[:1] * 2)]
    assert truncated(task, *rows) == [False, True, True, False]
    task = make_task(TextRanking, model_of(), max_chars=20, over_max_chars="truncate")
    assert truncated(task, *({"query": "x" * num, "text": ["a", "b"]} for num in (20, 21))) == [False, True]
