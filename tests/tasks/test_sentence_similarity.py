from __future__ import annotations

import csv
import warnings

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoModel, AutoTokenizer

from hfray.errors import DataError, RowError, SpecError
from hfray.tasks.sentence_similarity import SentenceSimilarity
from tests.tasks.support import TEXTS, answer, bert_config, make_task, tiny_model, trained_minilm, truncated


@pytest.fixture(scope="module")
def trained():
    folder = trained_minilm()
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model():
    return tiny_model(SentenceSimilarity.auto_model, bert_config())


def trained_task(trained, **options):
    model, tokenizer = trained
    return make_task(SentenceSimilarity, model, tokenizer, info={"max_length": 256, "pooling": "mean"}, **options)


@pytest.mark.slow
def test_cosines_are_those_of_sentence_transformers(trained):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # imports and old module names of the other side
        from sentence_transformers import SentenceTransformer

        theirs = SentenceTransformer(str(trained_minilm()), device="cpu", local_files_only=True)
    (result,) = answer(trained_task(trained), trained[0], [{"text": TEXTS[0], "text_pair": list(TEXTS)}])
    vectors = theirs.encode(list(TEXTS))
    np.testing.assert_allclose(result, theirs.similarity(vectors[:1], vectors)[0], atol=1e-5)
    assert result[0] == pytest.approx(1)
    assert max(result) <= 1


@pytest.mark.slow
def test_the_trained_model_agrees_with_people(trained, shared_data):
    with (shared_data / "stsb_en" / "stsb-en-test.csv").open(encoding="utf-8") as file:
        pairs = list(csv.reader(file))[:120]
    task = trained_task(trained)
    results = answer(task, trained[0], [{"text": first, "text_pair": second} for first, second, _ in pairs])
    metrics = task.metrics(results, [score for _, _, score in pairs])
    assert metrics["spearman"] > 0.8
    assert metrics["pearson"] > 0.8


def test_rows_do_not_mix_and_results_fit_the_arrow_type(model):
    task = make_task(SentenceSimilarity, model)
    rows = [
        {"text": "a card", "text_pair": "money"},
        {"text": "a card", "text_pair": None},
        {"text": "a card", "text_pair": ["weather", "money"]},
        {"text": "a card", "text_pair": []},
        {"text": None, "text_pair": "money"},
        {"text": "weather", "text_pair": "a card"},
    ]
    results = answer(task, model, rows)
    errors = {i: each.type for i, each in enumerate(results) if isinstance(each, RowError)}
    assert errors == {1: "NullText", 3: "NoTexts", 4: "NullText"}
    good = [each for each in results if not isinstance(each, RowError)]
    assert good[0] == pytest.approx(good[1][1:])
    assert good[2] == pytest.approx(good[1][:1])
    assert pa.array(good, task.result_type()).to_pylist() == good
    assert task.summarize(good[1]).score == good[1][0]


def test_pooling_and_prompts_change_the_vectors_on_both_sides(model):
    rows = [{"text": "a card", "text_pair": ["a card", "money"]}]
    plain = answer(make_task(SentenceSimilarity, model), model, rows)[0]
    for options in ({"pooling": "cls"}, {"prefix": "query: "}):
        (result,) = answer(make_task(SentenceSimilarity, model, **options), model, rows)
        assert result[0] == pytest.approx(1)
        assert result[1] != pytest.approx(plain[1])
        (request,) = answer(make_task(SentenceSimilarity, model), model, rows, SentenceSimilarity.Options(**options))
        assert request == result
    with pytest.raises(SpecError, match="stored prompts"):
        make_task(SentenceSimilarity, model, prompt_name="query")


def test_metrics_need_one_text_and_a_number_per_row(model):
    task = make_task(SentenceSimilarity, model)
    assert task.metrics([[0.1], [0.5], [0.9]], [0, 3, "4"])["spearman"] == pytest.approx(1)
    with pytest.raises(DataError, match="row 1 compares 2 texts"):
        task.metrics([[0.1], [0.5, 0.6]], [0, 1])
    with pytest.raises(DataError, match="'x'"):
        task.metrics([[0.1], [0.5]], [0, "x"])


def test_rows_that_lose_text_are_known(model):
    texts = ["word " * num for num in (62, 63)]
    task = make_task(SentenceSimilarity, model)
    pairs = [(texts[0], texts[0]), (texts[1], "a"), ("a", texts), ("a", texts[:1] * 2)]
    rows = [{"text": first, "text_pair": second} for first, second in pairs]
    assert truncated(task, *rows) == [False, True, True, False]
