from __future__ import annotations

import math

import numpy as np
import pytest

from hfray.errors import DataError
from hfray.tasks import metrics


def test_accuracy():
    assert metrics.accuracy(["a", "b", "c", "c"], ["a", "b", "b", "c"]) == 0.75
    assert metrics.accuracy([frozenset("ab"), frozenset()], [frozenset("ba"), frozenset("a")]) == 0.5
    assert math.isnan(metrics.accuracy([], []))
    with pytest.raises(ValueError, match="shorter"):
        metrics.accuracy(["a"], [])


def test_f1_of_single_labels_by_hand():
    predictions, references = ["a", "a", "b", "c"], ["a", "b", "b", "d"]
    # a: 1 hit, 1 wrong; b: 1 hit, 1 missed; c: 1 wrong; d: 1 missed
    assert metrics.f1_macro(predictions, references) == pytest.approx((2 / 3 + 2 / 3 + 0 + 0) / 4)
    assert metrics.f1_micro(predictions, references) == pytest.approx(0.5)


def test_f1_of_several_labels_by_hand():
    predictions, references = [["a", "b"], [], ["c"]], [["a"], ["b"], ["c"]]
    assert metrics.f1_micro(predictions, references) == pytest.approx(4 / 6)
    assert metrics.f1_macro(predictions, references) == pytest.approx((1 + 0 + 1) / 3)
    assert math.isnan(metrics.f1_micro([[]], [[]]))
    assert math.isnan(metrics.f1_macro([], []))


@pytest.mark.slow
def test_f1_against_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    found, wanted = rng.integers(0, 6, 200).tolist(), rng.integers(0, 5, 200).tolist()
    assert metrics.f1_macro(found, wanted) == pytest.approx(sklearn.f1_score(wanted, found, average="macro"))
    assert metrics.f1_micro(found, wanted) == pytest.approx(sklearn.f1_score(wanted, found, average="micro"))
    several_found, several_wanted = rng.integers(0, 2, (2, 100, 5))
    for average, ours in (("macro", metrics.f1_macro), ("micro", metrics.f1_micro)):
        value = ours([np.flatnonzero(row).tolist() for row in several_found],
                     [np.flatnonzero(row).tolist() for row in several_wanted])  # fmt: skip
        assert value == pytest.approx(sklearn.f1_score(several_wanted, several_found, average=average))


def test_correlations_by_hand():
    assert metrics.pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert metrics.pearson([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert metrics.spearman([1, 2, 3], [1, 10, 5]) == pytest.approx(0.5)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4
    assert metrics.spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


@pytest.mark.parametrize("correlation", [metrics.pearson, metrics.spearman])
def test_undefined_correlations_are_nan(correlation):
    assert math.isnan(correlation([], []))
    assert math.isnan(correlation([1], [1]))
    assert math.isnan(correlation([0.1, 0.1, 0.1], [1, 2, 3]))
    with pytest.raises(ValueError, match="2 predictions, 1 references"):
        correlation([1, 2], [1])


def test_correlations_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=100), rng.integers(0, 6, 100).astype(float)
    assert metrics.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert metrics.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_mrr():
    rankings, relevances = [[2, 0, 1], [0, 1], [1, 0]], [[1, 1, 0], [1, 0], [0, 0]]
    assert metrics.mrr_at_k(rankings, relevances) == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert metrics.mrr_at_k(rankings, relevances, k=1) == pytest.approx((0 + 1 + 0) / 3)


def test_ndcg():
    ideal = 2 / np.log2(2) + 1 / np.log2(3)
    assert metrics.ndcg_at_k([[1, 0, 2]], [[2, 0, 1]]) == pytest.approx((2 / np.log2(3) + 1 / np.log2(4)) / ideal)
    assert metrics.ndcg_at_k([[1, 0, 2]], [[2, 0, 1]], k=1) == 0
    assert metrics.ndcg_at_k([[0], [0]], [[0], [5]]) == 0.5
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    gains, scores = rng.integers(0, 4, (20, 15)), rng.random((20, 15))
    rankings = np.argsort(-scores, axis=1)
    assert metrics.ndcg_at_k(rankings.tolist(), gains.tolist(), k=10) == pytest.approx(
        sklearn.ndcg_score(gains, scores, k=10)
    )


def test_squad_normalisation():
    assert metrics.squad_normalize("The  Quick, (brown) FOX\tand an ant!") == "quick brown fox and ant"
    assert metrics.squad_normalize("theatre") == "theatre"
    assert metrics.squad_normalize("«Ünï»") == "«ünï»"  # only ASCII punctuation goes


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "f1"),
    [
        ("The Denver Broncos!", ["Denver Broncos"], 100, 100),
        ("Denver", ["Denver Broncos", "Broncos"], 0, 100 * 2 / 3),
        ("a b b", ["b b c"], 0, 100 * 4 / 5),  # the article goes, the repeated word counts twice
        ("x", ["y"], 0, 0),
        ("", [], 100, 100),
        ("", [""], 100, 100),
        ("x", [], 0, 0),
        ("", ["x"], 0, 0),
        ("the", ["an"], 100, 100),
    ],
)
def test_squad(prediction, answers, exact, f1):
    assert metrics.squad_exact_match_and_f1([prediction], [answers]) == pytest.approx({"exact_match": exact, "f1": f1})


def test_squad_is_a_mean():
    values = metrics.squad_exact_match_and_f1(["a cat", "dog"], [["cat"], ["cat"]])
    assert values == {"exact_match": 50, "f1": 50}


@pytest.mark.parametrize(
    ("tags", "spans", "strict_spans"),
    [
        ("B-P I-P O B-L", [("P", 0, 1), ("L", 3, 3)], [("P", 0, 1), ("L", 3, 3)]),
        ("I-P I-P O", [("P", 0, 1)], []),
        ("B-P B-P I-L", [("P", 0, 0), ("P", 1, 1), ("L", 2, 2)], [("P", 0, 0), ("P", 1, 1)]),
        ("B-P I-L I-P", [("P", 0, 0), ("L", 1, 1), ("P", 2, 2)], [("P", 0, 0)]),
        ("O O", [], []),
        ("", [], []),
        ("B I O", [("_", 0, 1)], [("_", 0, 1)]),
        ("B-a-b I-a-b", [("a-b", 0, 1)], [("a-b", 0, 1)]),
        ("S-P I-P", [("P", 0, 0), ("P", 1, 1)], []),
        ("U-P B-P L-P I-P", [("P", 0, 0), ("P", 1, 2), ("P", 3, 3)], [("P", 1, 2)]),
        ("PER PER O LOC", [("PER", 0, 1), ("LOC", 3, 3)], []),
    ],
)
def test_spans_of_tags(tags, spans, strict_spans):
    assert metrics.spans_of_tags(tags.split()) == spans
    assert metrics.spans_of_tags(tags.split(), strict=True) == strict_spans


def test_entity_f1_of_tags_and_spans():
    found = [["B-P", "I-P", "O", "B-L"], ["O", "B-L"]]
    wanted = [["B-P", "I-P", "O", "B-O"], ["B-L", "I-L"]]
    expected = {"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3}
    assert metrics.entity_f1(found, wanted) == pytest.approx(expected)
    spans = [[("P", 0, 1), ("L", 3, 3)], [("L", 1, 1)]]
    assert metrics.entity_f1(spans, [[("P", 0, 1), ("O", 3, 3)], [("L", 0, 1)]]) == pytest.approx(expected)
    assert metrics.entity_f1(spans, wanted) == pytest.approx(expected)
    assert metrics.entity_f1([["O"]], [["O"]]) == {"precision": 0, "recall": 0, "f1": 0}
    assert metrics.entity_f1([["B-P"]], [["O"]]) == {"precision": 0, "recall": 0, "f1": 0}


def test_the_example_of_seqeval():
    """The first example of seqeval's README: one of two entities is right."""
    wanted = ["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]
    found = ["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]
    assert metrics.entity_f1(found, wanted)["f1"] == 0.5


@pytest.mark.slow
def test_rouge():
    values = metrics.rouge(["the cat sat", "x"], ["the cat sat down", ["a b", "x"]])
    # Unigrams 3/3 and 3/4, bigrams 2/2 and 2/3; "x" has no bigram.
    assert values["rouge1"] == pytest.approx((6 / 7 + 1) / 2)
    assert values["rouge2"] == pytest.approx((4 / 5 + 0) / 2)
    assert values["rougeL"] == pytest.approx((6 / 7 + 1) / 2)
    assert metrics.rouge(["running cats"], ["run cat"], use_stemmer=True)["rouge1"] == 1
    assert math.isnan(metrics.rouge([], [])["rouge1"])


def test_bleu_and_chrf():
    same = metrics.bleu_and_chrf(["the cat sat on the mat"], ["the cat sat on the mat"])
    assert same == pytest.approx({"bleu": 100, "chrf": 100})
    sacrebleu = pytest.importorskip("sacrebleu")
    found = ["the cat is on the mat", "it is a dog here"]
    values = metrics.bleu_and_chrf(found, [["the cat sat on the mat", "a cat is on the mat"], "it is a dog there"])
    streams = [["the cat sat on the mat", "it is a dog there"], ["a cat is on the mat", None]]
    assert values["bleu"] == pytest.approx(sacrebleu.corpus_bleu(found, streams).score)
    assert values["chrf"] == pytest.approx(sacrebleu.corpus_chrf(found, streams).score)
    assert metrics.bleu_and_chrf(["今天天气很好"], ["今天天气很好"], tokenize="zh")["bleu"] == pytest.approx(100)
    assert math.isnan(metrics.bleu_and_chrf([], [])["bleu"])


def test_numbers_of():
    assert metrics.numbers_of([1, "2.5", np.float32(3)]) == [1.0, 2.5, 3.0]
    for wrong in ("x", None, True, [1], "nan", float("inf")):
        with pytest.raises(DataError, match="reference 1 is"):
            metrics.numbers_of([0, wrong])
