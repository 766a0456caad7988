"""What classifying tasks share: items of one logits head, the type of results, references as labels, metrics.
Knows labels; not where texts or scores come from.

A result is a list of {"label", "score"}, best first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hfray.errors import DataError, RowError
from hfray.tasks import metrics
from hfray.tasks.text import TextEncoder, Tokens
from hfray.types import Encoded, Item, Logits, Result

if TYPE_CHECKING:
    import pyarrow as pa


def label_scores_type() -> pa.DataType:
    """list<struct<label: string, score: float>>"""
    import pyarrow as pa

    return pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32())]))


def logits_items(encoder: TextEncoder, tokens: Sequence[Tokens | RowError], carry: Any) -> Encoded | RowError:
    """One row's texts or pairs as Logits items, or the first error among them."""
    items = []
    for each in tokens:
        if isinstance(each, RowError):
            return each
        if not len(each.ids):
            return RowError("text has no tokens", type="EmptyText")
        items.append(Item("text", encoder.model_inputs(each), Logits()))
    return Encoded(tuple(items), carry, any(each.truncated for each in tokens if not isinstance(each, RowError)))


def label_of(reference: Any, labels: Sequence[str], *, closed: bool = True) -> str:
    """The label that a reference means: its name, or its index as a number or digits.

    closed: whether a name must be among `labels`. Raises DataError naming the value.
    """
    if isinstance(reference, str) and (reference in labels or not (closed or reference.isdecimal())):
        return reference
    is_index = isinstance(reference, int | np.integer) and not isinstance(reference, bool)
    if not is_index and not (isinstance(reference, str) and reference.isdecimal()):
        raise DataError(
            f"reference {reference!r} ({type(reference).__name__}) is neither a label nor the index of one; "
            f"{_known(labels)}"
        )
    if not 0 <= int(reference) < len(labels):
        raise DataError(f"reference {reference!r} is not the index of a label; {_known(labels)}")
    return labels[int(reference)]


def single_label_metrics(
    results: Sequence[Result], references: Sequence[Any], labels: Sequence[str], *, closed: bool = True
) -> dict[str, float]:
    """ "accuracy" and "macro_f1" of the best label of each result."""
    found = [result[0]["label"] for result in results]
    wanted = [label_of(reference, labels, closed=closed) for reference in references]
    return {"accuracy": metrics.accuracy(found, wanted), "macro_f1": metrics.f1_macro(found, wanted)}


def multi_label_metrics(
    results: Sequence[Result],
    references: Sequence[Any],
    labels: Sequence[str],
    *,
    threshold: float = 0.5,
    closed: bool = True,
) -> dict[str, float]:
    """ "micro_f1", "macro_f1" and "subset_accuracy" of the labels scored above the threshold.

    A reference is a list of labels (names or indices), or one label.
    """
    found = [frozenset(each["label"] for each in result if each["score"] > threshold) for result in results]
    wanted = [
        frozenset(label_of(each, labels, closed=closed) for each in _several(reference)) for reference in references
    ]
    return {
        "micro_f1": metrics.f1_micro(found, wanted),
        "macro_f1": metrics.f1_macro(found, wanted),
        "subset_accuracy": metrics.accuracy(found, wanted),
    }


def regression_metrics(results: Sequence[Result], references: Sequence[Any]) -> dict[str, float]:
    """ "pearson" and "spearman" of the only score of each result against a number."""
    return correlation_metrics([result[0]["score"] for result in results], references)


def correlation_metrics(scores: Sequence[float], references: Sequence[Any]) -> dict[str, float]:
    """ "pearson" and "spearman" of scores against references that must be numbers."""
    numbers = metrics.numbers_of(references)
    return {"pearson": metrics.pearson(scores, numbers), "spearman": metrics.spearman(scores, numbers)}


def _several(reference: Any) -> list[Any]:
    return list(reference) if isinstance(reference, list | tuple | set | frozenset | np.ndarray) else [reference]


def _known(labels: Sequence[str]) -> str:
    shown = ", ".join(map(repr, labels[:8]))
    return f"the {len(labels)} labels are {shown}{', ...' if len(labels) > 8 else ''}"
