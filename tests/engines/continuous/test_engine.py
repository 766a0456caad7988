"""The engine's text against `model.generate`, token by token in float32, whatever shares the batch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BloomConfig, T5Config

from hfray.engines.base import Token
from hfray.engines.continuous.engine import ContinuousEngine
from hfray.engines.generate import generate_batch
from hfray.engines.sampling import GumbelNoise
from hfray.errors import EngineError, ItemError, SpecError
from tests.engines.continuous.support import (
    EOS,
    LENGTHS,
    MODELS,
    MORE_MODELS,
    VOCABULARY,
    alone,
    bytes_of,
    engine_of,
    item_of,
    model_of,
    prompts,
    tokens_of,
)
from tests.models.support import loaded
from tests.tasks.support import tiny_model


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_step_tokens": 9, "max_running": 3},
        {"max_step_tokens": 2, "max_running": 2},
        {"block_tokens": 32},
    ],
    ids=str,
)
def test_greedy_equals_generate_in_any_composition(name: str, settings: dict[str, Any]) -> None:
    wanted = [alone(name, ids) for ids in prompts()]
    assert len({tuple(tokens) for tokens in wanted}) == len(LENGTHS)
    with engine_of(name, **settings) as engine:
        outputs = engine.run([item_of(ids) for ids in prompts()])
        assert tokens_of(outputs) == wanted
        assert [output["finish"] for output in outputs] == [
            "stop" if tokens[-1] == EOS else "length" for tokens in wanted
        ]
        order = random.Random(3).sample(range(len(LENGTHS)), len(LENGTHS))
        futures = [engine.submit([item_of(prompts()[number])]) for number in order]  # they arrive one by one
        assert [tokens_of(future.result())[0] for future in futures] == [wanted[number] for number in order]


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_MODELS)
def test_other_architectures_equal_generate_too(name: str) -> None:
    with engine_of(name, max_step_tokens=17) as engine:
        outputs = engine.run([item_of(ids) for ids in prompts()])
    assert tokens_of(outputs) == [alone(name, ids) for ids in prompts()]


@pytest.mark.parametrize("name", MODELS)
def test_greedy_equals_generate_under_preemption(name: str) -> None:
    with engine_of(name, cache_bytes=bytes_of(name, 26)) as engine:
        outputs = engine.run([item_of(ids) for ids in prompts()])
        assert tokens_of(outputs) == [alone(name, ids) for ids in prompts()]
        assert engine.scheduler.preemptions > 0


@pytest.mark.parametrize("name", MODELS)
def test_a_common_beginning_is_computed_once(name: str) -> None:
    (system,) = prompts((30,), seed=1)
    whole = [np.concatenate([system, ids]) for ids in prompts((1, 9, 17, 4))]
    with engine_of(name) as engine:
        assert tokens_of(engine.run([item_of(ids) for ids in whole])) == [alone(name, ids) for ids in whole]
        assert engine.scheduler.shared_tokens == 3 * 28
        fed = engine.stats.tokens
        assert tokens_of(engine.run([item_of(whole[1])])) == [alone(name, whole[1])]
        assert engine.stats.tokens - fed <= 3 + 24  # the rest of the last full block, and the new tokens
        fed = engine.stats.tokens
        assert tokens_of(engine.run([item_of(whole[1], salt="tenant")])) == [alone(name, whole[1])]
        assert engine.stats.tokens - fed >= len(whole[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
        {"temperature": 0.7, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_new_tokens": 5},
        {"repetition_penalty": 1.7, "min_new_tokens": 9},
    ],
    ids=str,
)
def test_equal_seeds_give_the_static_batches_text_in_any_batch(name: str, settings: dict[str, Any]) -> None:
    items = [item_of(ids, seed=seed, **settings) for seed, ids in enumerate(prompts())]
    wanted = [tokens_of(generate_batch(model_of(name), [item], "cpu"))[0] for item in items]
    others = [item_of(ids, temperature=0.9, seed=99) for ids in prompts((5, 50), seed=2)]
    with engine_of(name) as engine:
        assert tokens_of(engine.run([*others, *items]))[2:] == wanted
    with engine_of(name, cache_bytes=bytes_of(name, 26), max_step_tokens=8, max_running=5) as engine:
        assert tokens_of(engine.run(items[::-1]))[::-1] == wanted
        assert engine.scheduler.preemptions > 0


def test_a_stop_ends_its_sequence_and_the_others_go_on() -> None:
    def ends(wanted: Sequence[int]) -> Any:
        return lambda tokens: list(tokens[-len(wanted) :]) == list(wanted)

    def breaks(tokens: Sequence[int]) -> bool:
        raise ValueError("a matcher of poor quality")

    ids = max(prompts(), key=lambda ids: len(alone("llama", ids)))
    free = alone("llama", ids)
    item = item_of(ids)
    assert item.generation is not None
    stopped = replace(item, generation=replace(item.generation, stop=ends(free[1:3])))
    broken = replace(item, generation=replace(item.generation, stop=breaks))
    with engine_of("llama") as engine:
        first, second, third = engine.run([stopped, item, broken])
    assert isinstance(first, dict)
    assert (first["tokens"].tolist(), first["finish"]) == (free[:3], "stop")
    assert tokens_of([second]) == [free]
    assert isinstance(third, ItemError)
    assert "poor quality" in str(third)


def test_equal_items_are_computed_once_and_kept_if_they_ask_for_it() -> None:
    item = item_of(prompts()[1])
    with engine_of("gpt2") as engine:
        outputs = engine.run([item] * 3)
        assert tokens_of(outputs) == [alone("gpt2", prompts()[1])] * 3
        assert (engine.stats.items, engine.stats.computed_items) == (3, 1)
        kept = replace(item, reuse="job")
        assert tokens_of([*engine.run([kept]), *engine.run([kept])]) == tokens_of(outputs[:2])
        assert engine.stats.computed_items == 2
        assert engine.run([]) == []


def test_what_cannot_run_fails_alone() -> None:
    good = item_of(prompts()[0])
    bad = [
        (item_of([]), "EmptyInput"),
        (item_of([5, VOCABULARY]), "TokenOutOfRange"),
        (item_of(prompts((150,))[0]), "PromptTooLong"),
        (item_of(prompts()[0], num_beams=2), "WrongKind"),
        (item_of(prompts((120,))[0]), "CacheTooSmall"),
    ]
    with engine_of("gpt2", cache_bytes=bytes_of("gpt2", 20)) as engine:
        outputs = engine.run([good, *(item for item, _ in bad), good])
        growing = engine.run([item_of(prompts((70,))[0], eos_token_ids=())])[0]
        with pytest.raises(ItemError):
            asyncio.run(_all(engine, bad[0][0]))
    assert tokens_of([outputs[0], outputs[-1]]) == [alone("gpt2", prompts()[0])] * 2
    assert [each.type for each in outputs[1:-1] if isinstance(each, ItemError)] == [reason for _, reason in bad]
    assert isinstance(growing, ItemError)
    assert growing.type == "CacheTooSmall"


def test_a_model_that_fails_on_one_prompt_fails_for_that_prompt_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with engine_of("llama") as engine:
        real = engine._runner.step

        def fragile(slices: Any, fresh: Any) -> Any:
            if any(5 in each.sequence.tokens[each.start : each.end] for each in slices):
                raise ValueError("a five")
            return real(slices, fresh)

        monkeypatch.setattr(engine._runner, "step", fragile)
        good = [ids[ids != 5] for ids in prompts()]
        good = [ids for ids in good if len(ids) and 5 not in alone("llama", ids)]
        outputs = engine.run([*map(item_of, good), item_of([9, 5, 9])])
    assert len(good) > 2
    assert tokens_of(outputs[:-1]) == [alone("llama", ids) for ids in good]
    assert isinstance(outputs[-1], ItemError)
    assert "a five" in str(outputs[-1])


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"max_step_tokens": 3, "max_running": 3}], ids=str)
def test_scores_that_are_no_numbers_fail_alone_and_do_not_spoil_the_cache(settings: dict[str, Any]) -> None:
    with engine_of("llama", cache_bytes=bytes_of("llama", 40), **settings) as engine:
        embedding = engine._runner._base.get_input_embeddings()
        with torch.no_grad():
            embedding.weight[5] = float("nan")
        for _ in range(3):
            good = [ids for ids in prompts() if 5 not in [*ids, *alone("llama", ids)]]
            bad = item_of([*good[-1][:8], 5, *([9] * 30)])
            outputs = engine.run([*map(item_of, good[:2]), bad, *map(item_of, good[2:])])
            failed = outputs.pop(2)
            assert isinstance(failed, ItemError)
            assert failed.type == "NonFiniteOutput"
            assert tokens_of(outputs) == [alone("llama", ids) for ids in good]
            assert len(good) > 3


def test_out_of_memory_halves_the_step_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with engine_of("gpt2", max_step_tokens=64) as engine:
        real = engine._runner.step

        def small(slices: Any, fresh: Any) -> Any:
            if sum(each.count for each in slices) > 20:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return real(slices, fresh)

        monkeypatch.setattr(engine._runner, "step", small)
        assert tokens_of(engine.run(list(map(item_of, prompts())))) == [alone("gpt2", ids) for ids in prompts()]
        assert engine.stats.out_of_memory == 2
        assert engine.scheduler.budget.now == 16

        def never(slices: Any, fresh: Any) -> Any:
            raise RuntimeError("CUDA error: out of memory")  # as a kernel says it, and the device is not lost

        monkeypatch.setattr(engine._runner, "step", never)
        (output,) = engine.run([item_of(prompts()[1])])
        assert isinstance(output, ItemError)
        assert output.type == "OutOfMemory"


def test_a_step_that_failed_uses_up_no_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out while the tokens are drawn, when some have been already."""
    items = [item_of(ids, temperature=1.0, seed=number) for number, ids in enumerate(prompts())]
    with engine_of("llama") as engine:
        wanted = tokens_of(engine.run(items))
    real, num_failed = GumbelNoise.__call__, 0
    dice = random.Random(3)

    def sometimes(self: GumbelNoise, ids: Any, scores: Any) -> Any:
        nonlocal num_failed
        drawn = real(self, ids, scores)
        if dice.random() < 0.1:
            num_failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return drawn

    with engine_of("llama") as engine:
        monkeypatch.setattr(GumbelNoise, "__call__", sometimes)
        outputs = engine.run(items)
    assert num_failed > 5
    done = [place for place, output in enumerate(outputs) if not isinstance(output, ItemError)]
    assert len(done) > 1
    assert [outputs[place]["tokens"].tolist() for place in done] == [wanted[place] for place in done]


def test_a_lost_device_ends_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    with engine_of("gpt2") as engine:

        def lost(slices: Any, fresh: Any) -> Any:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        monkeypatch.setattr(engine._runner, "step", lost)
        with pytest.raises(EngineError, match="device is lost"):
            engine.run(list(map(item_of, prompts())))
        with pytest.raises(EngineError, match="closed"):
            engine.run([item_of(prompts()[0])])


def test_a_stream_that_has_ended_is_told_so_though_the_engine_fails_at_that_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def both(engine: ContinuousEngine) -> list[Any]:
        streams = [_all(engine, item_of(ids, max_new_tokens=1)) for ids in prompts()[:2]]
        return await asyncio.wait_for(asyncio.gather(*streams, return_exceptions=True), 20)

    with engine_of("gpt2") as engine:
        remove, removed = engine.scheduler.remove, 0

        def once(sequence: Any) -> None:
            nonlocal removed
            removed += 1
            remove(sequence)
            if removed == 2:
                engine.scheduler.running.append(sequence)  # its blocks are free, and it is among those to be failed
                raise RuntimeError("a mistake in the engine")

        monkeypatch.setattr(engine.scheduler, "remove", once)
        first, second = asyncio.run(both(engine))
    assert [token.id for token in first] == alone("gpt2", prompts()[0])[:1]
    assert isinstance(second, EngineError)


async def _all(engine: ContinuousEngine, item: Any) -> list[Token]:
    return [token async for token in engine.stream(item)]


def test_a_stream_is_the_text_token_by_token() -> None:
    async def many(engine: ContinuousEngine) -> list[list[Token]]:
        return await asyncio.gather(*(_all(engine, item_of(ids)) for ids in prompts()))

    with engine_of("llama") as engine:
        streams = asyncio.run(many(engine))
        engine.close()
        with pytest.raises(EngineError):
            asyncio.run(_all(engine, item_of(prompts()[0])))
    for tokens, ids in zip(streams, prompts(), strict=True):
        wanted = alone("llama", ids)
        assert [token.id for token in tokens] == wanted
        assert [token.finish for token in tokens[:-1]] == [None] * (len(wanted) - 1)
        assert tokens[-1].finish == ("stop" if wanted[-1] == EOS else "length")


def test_a_reader_that_leaves_and_a_future_that_is_cancelled_free_their_blocks() -> None:
    endless = item_of(prompts()[1], max_new_tokens=10**6, eos_token_ids=())

    async def peek(engine: ContinuousEngine) -> int:
        stream = engine.stream(endless)
        async for token in stream:
            await stream.aclose()  # type: ignore[attr-defined]
            return token.id
        return -1

    with engine_of("llama", cache_bytes=2**24) as engine:
        assert asyncio.run(peek(engine)) == alone("llama", prompts()[1])[0]
        future = engine.submit([endless])
        while engine.scheduler.shared_tokens == 0:  # it began, with the blocks of the first
            pass
        assert future.cancel()
        assert tokens_of(engine.run([item_of(prompts()[0])])) == [alone("llama", prompts()[0])]
        assert engine.scheduler.running == []
        pending = engine.submit([endless])
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            pending.result()


def test_models_that_cannot_be_packed_are_refused_and_a_closed_engine_gives_the_model_back() -> None:
    shape = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1}
    bloom = tiny_model("AutoModelForCausalLM", BloomConfig(hidden_size=64, n_layer=2, n_head=4, **shape))
    with pytest.raises(SpecError, match="batch"):
        ContinuousEngine(loaded(bloom))
    seq2seq = tiny_model("AutoModelForSeq2SeqLM", T5Config(d_model=64, d_kv=16, d_ff=128, num_layers=2, **shape))
    with pytest.raises(SpecError, match="encoder-decoder"):
        ContinuousEngine(loaded(seq2seq))
    with pytest.raises(EngineError, match="bytes"), engine_of("gpt2", cache_bytes=10):
        pass
    with engine_of("gpt2") as engine:
        model = engine._runner._base
        with pytest.raises(RuntimeError, match="continuous engine"):
            model(torch.tensor([[3]]))
    assert torch.equal(model(torch.tensor([[3, 4]])).logits, model_of("gpt2")(torch.tensor([[3, 4]])).logits)
