"""Tags: groups by prefix, words by aggregation, back to one per word."""

from __future__ import annotations

import numpy as np
import pytest

from hfray.errors import DataError
from hfray.tasks.tags import Aggregation, aggregate, groups, word_tags


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("", []),
        ("O", [(0, 1)]),
        ("O O O", [(0, 3)]),
        ("B-A I-A I-A", [(0, 3)]),
        ("B-A B-A", [(0, 1), (1, 2)]),
        ("I-A I-A B-A", [(0, 2), (2, 3)]),
        ("B-A I-B O I-B", [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ("A I-A A", [(0, 3)]),
        ("NOUN NOUN VERB", [(0, 2), (2, 3)]),
        ("B-A-B I-A-B I-A", [(0, 2), (2, 3)]),
    ],
)
def test_groups_are_runs_of_one_type(tags: str, wanted: list[tuple[int, int]]) -> None:
    assert list(groups(tags.split())) == wanted


@pytest.mark.parametrize(
    ("aggregation", "wanted"),
    [
        ("none", [[0.6, 0.4], [0.1, 0.9], [0.3, 0.7]]),
        ("simple", [[0.6, 0.4], [0.1, 0.9], [0.3, 0.7]]),
        ("first", [[0.6, 0.4], [0.3, 0.7]]),
        ("average", [[0.35, 0.65], [0.3, 0.7]]),
        ("max", [[0.1, 0.9], [0.3, 0.7]]),
    ],
)
def test_words_get_one_distribution(aggregation: Aggregation, wanted: list[list[float]]) -> None:
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.3, 0.7]], dtype=np.float32)
    found = aggregate(probabilities, np.array([0, 2]), np.array([2, 3]), aggregation)
    assert found == pytest.approx(np.array(wanted))
    assert found.dtype == np.float32


def test_words_without_an_entity_are_outside() -> None:
    result = [{"word_index": [1, 2], "word_tags": ["B-A", "I-A"]}, {"word_index": [], "word_tags": []}]
    assert word_tags(result, 4, 0) == ["O", "B-A", "I-A", "O"]
    with pytest.raises(DataError, match="reference 7 has 2 tags, its row has at least 3 words"):
        word_tags(result, 2, 7)
    with pytest.raises(DataError, match="row 3 holds a plain text"):
        word_tags([{"word_index": None, "word_tags": None}], 2, 3)
