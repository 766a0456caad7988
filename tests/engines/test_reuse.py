"""Which items count as equal, and the cache of label texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hfray.engines.reuse import OutputCache, group_equal, item_key
from hfray.types import Generated, GenerationParams, Item, Logits, Pool

ITEM = Item("text", {"input_ids": np.array([1, 2, 3])}, Logits())
CAUSAL = replace(ITEM, kind="causal", reduce=Generated(), generation=GenerationParams())


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": {"input_ids": np.array([1, 2, 4])}},
        {"inputs": {"input_ids": np.array([[1, 2, 3]])}},
        {"inputs": {"input_ids": np.array([1, 2, 3], dtype=np.int32)}},
        {"inputs": {"input_ids": np.array([1, 2, 3]), "token_type_ids": np.array([0, 0, 0])}},
        {"inputs": {"token_type_ids": np.array([1, 2, 3])}},
        {"reduce": Pool()},
        {"reduce": Pool("cls")},
        {"kind": "seq2seq"},
        {"adapter": "lora"},
        {"cache_salt": "tenant"},
    ],
    ids=str,
)
def test_whatever_changes_the_answer_changes_the_key(changes: dict[str, Any]) -> None:
    assert item_key(replace(ITEM, **changes), 0) != item_key(ITEM, 0)


def test_place_and_reuse_do_not_and_views_are_as_good_as_copies() -> None:
    assert item_key(ITEM, 0) == item_key(replace(ITEM, reuse="job"), 9)
    strided = np.array([1, 0, 2, 0, 3])[::2]
    assert item_key(replace(ITEM, inputs={"input_ids": strided}), 0) == item_key(ITEM, 0)


def test_sampled_items_are_never_equal_and_greedy_ones_are() -> None:
    sampled = replace(CAUSAL, generation=GenerationParams(temperature=1.0))
    assert item_key(sampled, 0) != item_key(sampled, 1)
    assert item_key(CAUSAL, 0) == item_key(CAUSAL, 1)
    stopped = replace(CAUSAL, generation=GenerationParams(stop=lambda tokens: True))
    assert item_key(stopped, 0) != item_key(CAUSAL, 0)
    assert len(group_equal([sampled, sampled, CAUSAL, CAUSAL])) == 3


def test_groups_keep_every_place_in_order_of_first_appearance() -> None:
    other = replace(ITEM, inputs={"input_ids": np.array([9])})
    groups = group_equal([ITEM, other, ITEM, ITEM, other])
    assert [places for _, _, places in groups] == [[0, 2, 3], [1, 4]]
    assert groups[0][0] is ITEM
    assert group_equal([]) == []


def test_the_cache_drops_the_least_recently_used() -> None:
    output = {"embedding": np.zeros(100, dtype=np.float32)}  # 400 bytes and 200 for the entry
    cache = OutputCache(max_bytes=1300)
    cache.put(b"a", output)
    cache.put(b"b", output)
    assert cache.get(b"a") is not None
    cache.put(b"c", output)
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None
    assert cache.get(b"c") is not None


def test_a_kept_row_does_not_keep_its_batch() -> None:
    batch = np.arange(6, dtype=np.float32).reshape(2, 3)
    cache = OutputCache()
    cache.put(b"a", {"embedding": batch[1], "finish": "stop"})
    output = cache.get(b"a")
    assert output is not None
    assert output["embedding"].base is None
    assert (output["embedding"].tolist(), output["finish"]) == ([3, 4, 5], "stop")


def test_replacing_an_output_keeps_the_books_right() -> None:
    small, large = {"x": np.zeros(10, np.float32)}, {"x": np.zeros(250, np.float32)}
    cache = OutputCache(max_bytes=2500)
    for _ in range(3):
        cache.put(b"a", small)
        cache.put(b"a", large)
    cache.put(b"b", large)  # 1,200 bytes each: both fit
    kept = cache.get(b"a")
    assert kept is not None
    assert len(kept["x"]) == 250
    assert cache.get(b"b") is not None
    cache.put(b"c", large)
    assert cache.get(b"a") is None


def test_an_output_larger_than_the_cache_is_not_kept() -> None:
    cache = OutputCache(max_bytes=100)
    cache.put(b"a", {"x": np.zeros(1000)})
    assert cache.get(b"a") is None
