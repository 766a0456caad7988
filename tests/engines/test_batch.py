"""The batch engine on real tiny models: order, budget, bisection, memory, reuse, threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hfray.engines import batch, budget
from hfray.engines.batch import BatchEngine
from hfray.engines.failures import is_out_of_memory
from hfray.errors import EngineError, ItemError
from hfray.types import Generated, GenerationParams, Item, Logits, MaskScores, Output, Pool, Spans, TokenLogits
from tests.models.support import loaded
from tests.tasks.support import bert_config, run_items, tiny_model

VOCAB = 200


def model_for(auto_model: str, **changes: Any) -> Any:
    labels = () if auto_model == "AutoModelForQuestionAnswering" else ("a", "b", "c")  # its two outputs are no labels
    config = bert_config(labels=labels, **changes)
    config.vocab_size = VOCAB
    return tiny_model(auto_model, config)


def text_items(count: int, reduce: Any, *, seed: int = 0, longest: int = 60) -> list[Item]:
    random = np.random.default_rng(seed)
    items = []
    for _ in range(count):
        ids = random.integers(5, VOCAB, random.integers(3, longest))
        items.append(Item("text", {"input_ids": ids, "token_type_ids": np.zeros_like(ids)}, reduce))
    return items


@contextmanager
def engine_of(model: Any, **options: Any) -> Iterator[BatchEngine]:
    engine = BatchEngine(loaded(model), **options)
    try:
        yield engine
    finally:
        engine.close()


def assert_same(outputs: Sequence[Output | ItemError], expected: Sequence[Output], rtol: float = 1e-4) -> None:
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert isinstance(ours, dict), ours
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=rtol, atol=2e-5)


@pytest.mark.parametrize(
    ("auto_model", "reduce"),
    [
        ("AutoModelForSequenceClassification", Logits()),
        ("AutoModelForTokenClassification", TokenLogits()),
        ("AutoModelForQuestionAnswering", Spans()),
        ("AutoModelForMaskedLM", MaskScores((1, 2), 5)),
        ("AutoModelForMaskedLM", MaskScores((1,), 3, (7, 9, 11, 13))),
        ("AutoModel", Pool("mean", normalize=True)),
        ("AutoModel", Pool("mean", skip=2)),
        ("AutoModel", Pool("cls")),
        ("AutoModel", Pool("max")),
        ("AutoModel", Pool("last")),
        ("AutoModel", Pool("none")),
    ],
)
def test_a_padded_batch_equals_one_at_a_time(auto_model: str, reduce: Any) -> None:
    model = model_for(auto_model)
    items = text_items(40, reduce)
    with engine_of(model, max_batch_tokens=256) as engine:
        outputs = engine.run(items)
    assert_same(outputs, run_items(model, items))


def test_padding_stays_small_and_the_budget_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = batch.run_batch

    def spy(model: Any, items: Sequence[Item], on_step: Any) -> list[Output]:
        sizes.append(max(item.num_tokens for item in items) * len(items))
        return real(model, items)

    monkeypatch.setattr(batch, "run_batch", spy)
    with engine_of(model_for("AutoModel"), max_batch_tokens=512) as engine:
        engine.run(text_items(500, Pool()))
        assert max(sizes) <= 512
        assert engine.stats.tokens / engine.stats.padded_tokens > 0.96
        assert engine.stats.items == engine.stats.computed_items == 500


def test_equal_items_are_computed_once_and_job_items_kept() -> None:
    items = text_items(5, Logits()) * 4
    with engine_of(model_for("AutoModelForSequenceClassification")) as engine:
        outputs = engine.run(items)
        assert engine.stats.items == 20
        assert engine.stats.computed_items == 5
        assert_same(outputs[5:10], outputs[:5])
        kept = [replace(item, reuse="job") for item in items[:5]]
        engine.run(kept)
        assert engine.stats.computed_items == 10
        engine.run(kept)
        assert engine.stats.computed_items == 10
        # Another tenant's equal item is not answered from the cache.
        engine.run([replace(item, cache_salt="other") for item in kept])
        assert engine.stats.computed_items == 15


def test_a_failing_item_stands_alone() -> None:
    model = model_for("AutoModelForSequenceClassification")
    items = text_items(33, Logits(), longest=20)
    too_long = np.full(200, 7)  # beyond the position table: the embedding look-up raises
    items[17] = Item("text", {"input_ids": too_long, "token_type_ids": np.zeros_like(too_long)}, Logits())
    with engine_of(model, max_batch_tokens=100_000) as engine:
        outputs = engine.run(items)
    bad = outputs[17]
    assert isinstance(bad, ItemError)
    assert bad.type == "ModelFailure"
    good = [i for i in range(33) if i != 17]
    assert_same([outputs[i] for i in good], run_items(model, [items[i] for i in good]))


def test_tokens_outside_the_vocabulary_and_empty_inputs_never_reach_the_model() -> None:
    def item(*ids: int) -> Item:
        return Item("text", {"input_ids": np.array(ids, dtype=np.int64)}, Logits())

    with engine_of(model_for("AutoModelForSequenceClassification")) as engine:
        outputs = engine.run([item(5, 6), item(VOCAB), item(), item(-1, 5)])
    assert [type(each).__name__ if isinstance(each, dict) else each.type for each in outputs] == [
        "dict",
        "TokenOutOfRange",
        "EmptyInput",
        "TokenOutOfRange",
    ]


def test_out_of_memory_halves_the_budget_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device with room for 300 positions, raised by the allocator's own exception."""
    real = batch.run_batch

    def small_device(model: Any, items: Sequence[Item], on_step: Any) -> list[Output]:
        if max(item.num_tokens for item in items) * len(items) > 300:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(model, items)

    monkeypatch.setattr(batch, "run_batch", small_device)
    model = model_for("AutoModelForSequenceClassification", max_length=512)
    items = text_items(60, Logits())
    alone = np.full(400, 7)
    items.append(Item("text", {"input_ids": alone, "token_type_ids": np.zeros_like(alone)}, Logits()))
    with engine_of(model, max_batch_tokens=8192) as engine:
        outputs = engine.run(items)
        assert engine.stats.out_of_memory >= 3
        assert engine.max_batch_tokens <= 600
    last = outputs.pop()
    assert isinstance(last, ItemError)
    assert last.type == "OutOfMemory"
    assert_same(outputs, run_items(model, items[:-1]))


def test_a_smaller_budget_grows_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "PATIENCE", 4)
    real, most = batch.run_batch, 60

    def device(model: Any, items: Sequence[Item], on_step: Any) -> list[Output]:
        if max(item.num_tokens for item in items) * len(items) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(model, items)

    monkeypatch.setattr(batch, "run_batch", device)
    model = model_for("AutoModelForSequenceClassification", max_length=512)
    items = text_items(60, Logits())
    with engine_of(model, max_batch_tokens=1024) as engine:
        engine.run(items)
        assert engine.max_batch_tokens <= 120
        most = 10_000
        for _ in range(20):
            assert_same(engine.run(items), run_items(model, items))
        assert engine.max_batch_tokens == 1024


def test_a_real_allocation_failure_on_the_cpu_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_a_lost_device_ends_the_engine_not_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(model: Any, items: Sequence[Item], on_step: Any) -> list[Output]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(batch, "run_batch", lost)
    with engine_of(model_for("AutoModel")) as engine, pytest.raises(EngineError, match="device is lost"):
        engine.run(text_items(8, Pool()))


def test_answers_that_are_not_numbers_are_errors() -> None:
    model = model_for("AutoModelForSequenceClassification")
    with torch.no_grad():
        model.get_input_embeddings().weight[42] = float("nan")
    clean = Item("text", {"input_ids": np.array([5, 6, 7])}, Logits())
    poisoned = Item("text", {"input_ids": np.array([5, 42, 7])}, Logits())
    with engine_of(model) as engine:
        first, second = engine.run([clean, poisoned])
    assert isinstance(first, dict)
    assert isinstance(second, ItemError)
    assert second.type == "NonFiniteOutput"


def test_many_callers_each_get_their_own_answers() -> None:
    model = model_for("AutoModelForSequenceClassification")
    with engine_of(model, max_batch_tokens=256) as engine:
        answers: dict[int, Any] = {}

        def call(number: int) -> None:
            answers[number] = engine.run(text_items(7, Logits(), seed=number))

        threads = [threading.Thread(target=call, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    for number in range(12):
        assert_same(answers[number], run_items(model, text_items(7, Logits(), seed=number)))


def test_kinds_and_generation_settings_do_not_share_a_batch() -> None:
    item = Item("causal", {"input_ids": np.array([1, 2])}, Generated(), GenerationParams())
    hot = replace(item, generation=GenerationParams(temperature=1.0, seed=1))
    other_seed = replace(item, generation=GenerationParams(temperature=1.0, seed=2))
    assert batch._batch_key(item) != batch._batch_key(hot)
    assert batch._batch_key(hot) == batch._batch_key(other_seed)


def test_closing_answers_everybody_and_an_empty_call_is_fine() -> None:
    engine = BatchEngine(loaded(model_for("AutoModel")))
    assert engine.run([]) == []
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(text_items(1, Pool()))
