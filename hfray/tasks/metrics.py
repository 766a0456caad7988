"""Metric functions over plain sequences. Knows numbers, labels, strings and spans; not rows, tasks or models.

Predictions and references go in one for one (ValueError if their numbers differ). A value that is not defined, such
as the correlation of a constant or the mean of nothing, is NaN. Units are those in which the field reports each
metric: shares in 0..1 for accuracy, F1, MRR, nDCG and ROUGE, percent in 0..100 for SQuAD, BLEU and chrF.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from hfray.errors import DataError
from hfray.types import Array

Labels = str | int | Collection[Hashable]
"""The answer for one example: one label (a string or a number), or a collection of labels."""

Span = tuple[str, int, int]
"""An entity: label, first position, last position (in tokens or characters; inclusive or not, both sides alike)."""


def accuracy(predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """Share of predictions equal to their reference. Sets of labels as entries make it the subset accuracy."""
    return _mean([float(found == wanted) for found, wanted in zip(predictions, references, strict=True)])


def f1_micro(predictions: Sequence[Labels], references: Sequence[Labels]) -> float:
    """F1 over all decisions of all labels together; for single labels it equals the accuracy. NaN if nothing is
    predicted and nothing is wanted."""
    counts = _label_counts(predictions, references).values()
    hits, wrong, missed = (sum(column) for column in zip((0, 0, 0), *counts, strict=True))
    return _ratio(2 * hits, 2 * hits + wrong + missed)


def f1_macro(predictions: Sequence[Labels], references: Sequence[Labels]) -> float:
    """Unweighted mean of the F1 of every label that occurs in predictions or references, as scikit-learn has it."""
    counts = _label_counts(predictions, references).values()
    return _mean([2 * hits / (2 * hits + wrong + missed) for hits, wrong, missed in counts])


def pearson(predictions: Sequence[float], references: Sequence[float]) -> float:
    """Pearson's correlation; NaN for fewer than two examples or a constant side."""
    _check_lengths(predictions, references)
    if len(predictions) < 2:
        return float("nan")
    x = np.asarray(predictions, dtype=np.float64)
    y = np.asarray(references, dtype=np.float64)
    if (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    value = (x / np.linalg.norm(x)) @ (y / np.linalg.norm(y))
    return float(np.clip(value, -1.0, 1.0))


def spearman(predictions: Sequence[float], references: Sequence[float]) -> float:
    """Pearson's correlation of the ranks; equal values share the average of their ranks."""
    return pearson(_ranks(predictions), _ranks(references))  # type: ignore[arg-type]


def mrr_at_k(rankings: Sequence[Sequence[int]], relevances: Sequence[Sequence[float]], k: int = 10) -> float:
    """Mean of 1 / (place of the first relevant document), 0 where none is among the first `k`.

    rankings: per query the document indices, best first; relevances: per query the relevance of each document by its
    index, relevant if above 0.
    """
    values = []
    for ranking, gains in zip(rankings, relevances, strict=True):
        places = (place for place, index in enumerate(ranking[:k], start=1) if gains[index] > 0)
        values.append(1.0 / next(places, float("inf")))
    return _mean(values)


def ndcg_at_k(rankings: Sequence[Sequence[int]], relevances: Sequence[Sequence[float]], k: int = 10) -> float:
    """Mean normalised discounted cumulative gain with linear gains, gain / log2(place + 1), as trec_eval and
    scikit-learn have it; 0 for a query without a relevant document. Arguments as for `mrr_at_k`."""
    values = []
    for ranking, gains in zip(rankings, relevances, strict=True):
        ideal = _dcg(sorted(gains, reverse=True)[:k])
        values.append(_dcg([gains[index] for index in ranking[:k]]) / ideal if ideal > 0 else 0.0)
    return _mean(values)


def squad_exact_match_and_f1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """ "exact_match" and "f1" of the official SQuAD scripts, in percent; the best of the accepted answers counts.

    An unanswerable question has the reference [] (or [""]) and is right with the prediction "". Where normalising
    leaves nothing of an answer, the rule of v2.0 decides (both empty or not), which v1.1 does not have.
    Source: evaluate-v2.0.py, https://rajpurkar.github.io/SQuAD-explorer/
    """
    exact, f1 = [], []
    for prediction, answers in zip(predictions, references, strict=True):
        found = squad_normalize(prediction)
        wanted = [text for text in map(squad_normalize, answers) if text] or [""]
        exact.append(float(found in wanted))
        f1.append(max(_token_f1(found.split(), answer.split()) for answer in wanted))
    return {"exact_match": 100.0 * _mean(exact), "f1": 100.0 * _mean(f1)}


def squad_normalize(text: str) -> str:
    """Lower case without ASCII punctuation, English articles and extra white space, as the SQuAD scripts compare."""
    text = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def entity_f1(
    predictions: Sequence[Sequence[str] | Sequence[Span]],
    references: Sequence[Sequence[str] | Sequence[Span]],
    *,
    strict: bool = False,
) -> dict[str, float]:
    """ "precision", "recall" and "f1" over all entities of all sentences (micro average): an entity counts if its
    label and both ends are right.

    A sentence is a list of tags ("B-PER", "I-PER", "O") or of spans (label, start, end). Tags are read by
    `spans_of_tags`. A ratio without a denominator is 0, as in seqeval.
    """
    hits = num_found = num_wanted = 0
    for sentence, reference in zip(predictions, references, strict=True):
        found, wanted = _span_set(sentence, strict), _span_set(reference, strict)
        hits += len(found & wanted)
        num_found += len(found)
        num_wanted += len(wanted)
    return {
        "precision": hits / num_found if num_found else 0.0,
        "recall": hits / num_wanted if num_wanted else 0.0,
        "f1": 2 * hits / (num_found + num_wanted) if hits else 0.0,
    }


def spans_of_tags(tags: Sequence[str], *, strict: bool = False) -> list[Span]:
    """The entities of a tag sequence as (label, first, last), positions inclusive, in order.

    Not strict (conlleval, seqeval's default): "I-X" after "O" or after another type begins an entity; the prefixes E
    or L (last) and S or U (single) are understood too. Strict (seqeval's strict mode with IOB2): an entity begins
    with "B-" only, and an "I-" without one is no entity. A tag without a prefix ("PER") counts as "I-PER".
    """
    spans: list[Span] = []
    start = -1
    last_prefix, last_label = "O", ""
    for position, tag in enumerate([*tags, "O"]):
        prefix, label = _split_tag(tag)
        goes_on = prefix in ("I", "E") and last_prefix in ("B", "I") and label == last_label
        if start >= 0 and not goes_on:
            spans.append((last_label, start, position - 1))
            start = -1
        if start < 0 and prefix != "O" and (prefix == "B" or not strict):
            start = position
        last_prefix, last_label = prefix, label
    return spans


def rouge(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], *, use_stemmer: bool = False
) -> dict[str, float]:
    """Mean F-measures "rouge1", "rouge2", "rougeL" and "rougeLsum" by Google's rouge_score; with several references
    the best counts. Newlines separate the sentences of rougeLsum. Its tokenizer keeps only a-z and 0-9, so it says
    nothing about other scripts (use chrF)."""
    from rouge_score.rouge_scorer import RougeScorer

    types = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = RougeScorer(types, use_stemmer=use_stemmer)
    scores = [
        scorer.score_multi(_as_list(reference), prediction)
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    return {name: _mean([score[name].fmeasure for score in scores]) for name in types}


def bleu_and_chrf(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], *, tokenize: str = "13a"
) -> dict[str, float]:
    """Corpus "bleu" and "chrf" (chrF2) by sacrebleu; examples may differ in their number of references.

    tokenize: sacrebleu's tokenizer of BLEU; "zh" for Chinese, "char" for other scripts without spaces.
    """
    from sacrebleu.metrics import BLEU, CHRF

    _check_lengths(predictions, references)
    if not predictions:
        return {"bleu": float("nan"), "chrf": float("nan")}
    accepted = [_as_list(reference) for reference in references]
    width = max(map(len, accepted))
    # sacrebleu wants one stream per reference number, None where an example has no further one.
    streams = [[texts[index] if index < len(texts) else None for texts in accepted] for index in range(width)]
    found = list(predictions)
    return {
        "bleu": float(BLEU(tokenize=tokenize).corpus_score(found, streams).score),
        "chrf": float(CHRF().corpus_score(found, streams).score),
    }


def numbers_of(references: Iterable[Any]) -> list[float]:
    """References that must be numbers, or text that spells one, as floats. Raises DataError naming the first that is
    not, and its position among the compared rows."""
    numbers = []
    for position, value in enumerate(references):
        try:
            if isinstance(value, bool) or not isinstance(value, str | Real):
                raise ValueError
            number = float(value)
            if not np.isfinite(number):
                raise ValueError
        except ValueError:
            raise DataError(
                f"reference {position} is {value!r} ({type(value).__name__}); this metric needs a finite number"
            ) from None
        numbers.append(number)
    return numbers


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PREFIXES = {"B": "B", "I": "I", "O": "O", "E": "E", "L": "E", "S": "S", "U": "S"}


def _label_counts(predictions: Sequence[Labels], references: Sequence[Labels]) -> dict[Hashable, tuple[int, int, int]]:
    """Label to (true positives, false positives, false negatives)."""
    hits: Counter[Hashable] = Counter()
    wrong: Counter[Hashable] = Counter()
    missed: Counter[Hashable] = Counter()
    for prediction, reference in zip(predictions, references, strict=True):
        found, wanted = _label_set(prediction), _label_set(reference)
        hits.update(found & wanted)
        wrong.update(found - wanted)
        missed.update(wanted - found)
    return {label: (hits[label], wrong[label], missed[label]) for label in hits | wrong | missed}


def _label_set(labels: Labels) -> frozenset[Hashable]:
    return frozenset([labels]) if isinstance(labels, str | int) else frozenset(labels)


def _split_tag(tag: str) -> tuple[str, str]:
    prefix, _, label = tag.partition("-")
    return (_PREFIXES[prefix], label or "_") if prefix in _PREFIXES else ("I", tag)


def _span_set(sentence: Sequence[str] | Sequence[Span], strict: bool) -> set[Span]:
    tags = [each for each in sentence if isinstance(each, str)]
    spans = [(str(each[0]), int(each[1]), int(each[2])) for each in sentence if not isinstance(each, str)]
    return {*spans, *spans_of_tags(tags, strict=strict)}


def _token_f1(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    common = (Counter(found) & Counter(wanted)).total()
    return 2 * common / (len(found) + len(wanted))


def _dcg(gains: Sequence[float]) -> float:
    return float(sum(gain / np.log2(place + 1) for place, gain in enumerate(gains, start=1)))


def _ranks(values: Sequence[float]) -> Array:
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def _as_list(reference: str | Sequence[str]) -> list[str]:
    return [reference] if isinstance(reference, str) else list(reference)


def _check_lengths(predictions: Sequence[Any], references: Sequence[Any]) -> None:
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions, {len(references)} references")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
