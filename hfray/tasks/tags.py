"""Tags of tokens: one per word, grouped into entities, back to one per word. Knows no text and no tokenizer.

Words and groups follow Transformers' TokenClassificationPipeline (transformers/pipelines/token_classification.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from hfray.errors import DataError
from hfray.types import Array, Result

Aggregation = Literal["none", "simple", "first", "average", "max"]


def aggregate(probabilities: Array, starts: Array, ends: Array, aggregation: Aggregation) -> Array:
    """[num_tokens, num_labels] to [num_units, num_labels]."""
    if aggregation in ("none", "simple"):
        return probabilities
    if aggregation == "first":
        return probabilities[starts]
    if aggregation == "average":
        return np.asarray(np.add.reduceat(probabilities, starts, axis=0) / (ends - starts)[:, None].astype(np.float32))
    best = probabilities.max(axis=-1)
    surest = [start + int(best[start:end].argmax()) for start, end in zip(starts, ends, strict=True)]
    return probabilities[surest]


def groups(tags: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Runs of one entity type, half open; "B-" begins a new one, a tag without a prefix continues its like."""
    first = 0
    for index in range(1, len(tags)):
        if tags[index].startswith("B-") or _type(tags[index]) != _type(tags[index - 1]):
            yield first, index
            first = index
    if tags:
        yield first, len(tags)


def _type(tag: str) -> str:
    return tag[2:] if tag.startswith(("B-", "I-")) else tag


def word_tags(result: Result, num_words: int, row: int) -> list[str]:
    """One tag per word from a result's `word_index` and `word_tags`."""
    tags = ["O"] * num_words
    for entity in result:
        if entity["word_index"] is None:
            raise DataError(f"row {row} holds a plain text; tags per word need a list of words in column 'text'")
        for index, tag in zip(entity["word_index"], entity["word_tags"], strict=True):
            if index >= num_words:
                raise DataError(f"reference {row} has {num_words} tags, its row has at least {index + 1} words")
            tags[index] = tag
    return tags
