"""The engine without a model: shapes as the contract says, equal inputs equal outputs, slow on demand."""

from __future__ import annotations

import time
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hfray.engines.fake import EMBEDDING_SIZE, FakeEngine
from hfray.types import (
    Features,
    Generated,
    GenerationParams,
    Item,
    Logits,
    MaskScores,
    NextTokens,
    Pool,
    Spans,
    TokenLogits,
)

IDS = {"input_ids": np.array([4, 5, 6, 7, 8])}


@pytest.mark.parametrize(
    ("reduce", "shapes"),
    [
        (Logits(), {"logits": (3,)}),
        (TokenLogits(), {"logits": (5, 3)}),
        (Spans(), {"start": (5,), "end": (5,)}),
        (Pool(), {"embedding": (EMBEDDING_SIZE,)}),
        (Pool("none"), {"embedding": (5, EMBEDDING_SIZE)}),
        (Features(), {"embedding": (EMBEDDING_SIZE,)}),
        (MaskScores((1, 3), 4), {"ids": (2, 4), "scores": (2, 4)}),
        (MaskScores((1,), 4, (7, 9)), {"ids": (1, 2), "scores": (1, 2)}),
        (NextTokens(), {"logprobs": (4,)}),
        (NextTokens(3), {"logprobs": (2,)}),
    ],
    ids=str,
)
def test_every_reduce_has_its_shape(reduce: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    with closing(FakeEngine(num_labels=3)) as engine:
        (output,) = engine.run([Item("text", IDS, reduce)])
    assert isinstance(output, dict)
    assert {name: value.shape for name, value in output.items()} == shapes
    assert all(value.dtype == (np.int64 if name == "ids" else np.float32) for name, value in output.items())
    assert all(np.isfinite(value).all() for value in output.values())


def test_generation() -> None:
    item = Item("causal", IDS, Generated(), GenerationParams(max_new_tokens=2))
    with closing(FakeEngine()) as engine:
        first, second = engine.run([item, replace(item, generation=None)])
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["tokens"].tolist(), first["finish"]) == ([4, 5], "length")
    assert second["tokens"].tolist() == [4, 5, 6, 7]


def test_equal_inputs_have_equal_outputs_in_every_engine() -> None:
    items = [Item("text", {"input_ids": np.arange(n)}, Pool(normalize=True)) for n in (3, 4, 3)]
    with closing(FakeEngine()) as one, closing(FakeEngine()) as other:
        (a, b, c), again = one.run(items), other.run(items)
    assert isinstance(a, dict)
    assert isinstance(b, dict)
    assert isinstance(c, dict)
    assert a["embedding"].tolist() == c["embedding"].tolist() != b["embedding"].tolist()
    assert next(each["embedding"].tolist() for each in again if isinstance(each, dict)) == a["embedding"].tolist()
    assert np.linalg.norm(a["embedding"]) == pytest.approx(1)


def test_it_counts_waits_and_answers_in_order() -> None:
    items = [Item("text", {"input_ids": np.arange(n)}, Logits()) for n in (2, 3)]
    with closing(FakeEngine(seconds_per_item=0.02)) as engine:
        started = time.perf_counter()
        future = engine.submit(items)
        assert isinstance(future, Future)
        assert len(future.result()) == 2
        assert time.perf_counter() - started >= 0.04
        assert engine.run([]) == []
        stats = engine.stats
    assert (stats.items, stats.computed_items, stats.tokens, stats.padded_tokens) == (2, 2, 5, 5)
    assert stats.seconds >= 0.04
    with pytest.raises(RuntimeError):
        engine.submit(items)


def test_an_unknown_reduce_is_a_mistake() -> None:
    with closing(FakeEngine()) as engine, pytest.raises(TypeError, match="no fake output for str"):
        engine.run([Item("text", IDS, "logits")])  # type: ignore[arg-type]
