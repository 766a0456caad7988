"""Thousands of requests, many of them cancelled while they run: right answers, every block free, memory flat."""

from __future__ import annotations

import asyncio
import gc
import random
from concurrent.futures import wait
from typing import Any, cast

import psutil
import pytest

from hfray.engines.continuous.engine import ContinuousEngine
from tests.engines.continuous.support import alone, bytes_of, engine_of, item_of, prompts, tokens_of

TEXTS = prompts([random.Random(4).randint(1, 40) for _ in range(40)], seed=4)
WARM = 500
"""Requests after which allocators have what they keep."""
MAX_GROWTH_BYTES = 4 << 20
"""Of 2,000 requests or of 20,000: 2,000 that were kept, finished as they are, take 6 MB."""


def work_off(engine: ContinuousEngine, count: int, generator: random.Random) -> int:
    """How many were not cancelled; their texts are compared with `generate`."""
    futures = []
    for number in range(count):
        item = item_of(TEXTS[number % 40], max_new_tokens=generator.randint(1, 12))
        futures.append((item, engine.submit([item])))
        if number % 3 == 0:
            futures[generator.randrange(len(futures))][1].cancel()
        if number % 100 == 99:  # the engine works some off, so that later cancellations meet running ones
            wait([future for _, future in futures[-20:]])
    done = 0
    for item, future in futures:
        if not future.cancelled():
            done += 1
            assert item.generation is not None
            limit = item.generation.max_new_tokens
            assert tokens_of(future.result()) == [alone("llama", item.inputs["input_ids"])[:limit]]
    return done


def used_bytes() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize(
    "count", [pytest.param(2_000, marks=pytest.mark.slow), pytest.param(20_000, marks=pytest.mark.chaos)]
)
def test_random_cancellation_leaves_every_block_free_and_memory_flat(count: int) -> None:
    generator = random.Random(11)
    with engine_of("llama", cache_bytes=bytes_of("llama", 24), max_running=12) as engine:
        work_off(engine, WARM, generator)
        before = used_bytes()
        done = sum(work_off(engine, 1_000, generator) for _ in range(count // 1_000))
        assert used_bytes() - before < MAX_GROWTH_BYTES
        assert count / 2 < done < count
        assert engine.scheduler.preemptions > 0
        assert engine.scheduler.running == []
        assert not engine.scheduler.waiting


@pytest.mark.slow
def test_readers_that_leave_their_streams_leave_every_block_free() -> None:
    generator = random.Random(12)

    async def read(engine: ContinuousEngine, number: int) -> bool:
        ids, leaves_after = TEXTS[number % 40], generator.choice([0, 1, 3, None, None])
        tokens: list[int] = []
        stream = engine.stream(item_of(ids, max_new_tokens=12))
        if leaves_after == 0:
            task = asyncio.ensure_future(anext(aiter(stream)))
            await asyncio.sleep(0)  # it is asked for, and given up at once
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return False
        async for token in stream:
            tokens.append(token.id)
            if len(tokens) == leaves_after:
                break
        await cast(Any, stream).aclose()
        assert tokens == alone("llama", ids)[: min(12, leaves_after or 12)]
        return token.finish is not None

    async def read_all(engine: ContinuousEngine, count: int) -> int:
        done = 0
        for first in range(0, count, 24):
            done += sum(await asyncio.gather(*(read(engine, first + place) for place in range(24))))
        return done

    with engine_of("llama", cache_bytes=bytes_of("llama", 24), max_running=12) as engine:
        asyncio.run(read_all(engine, 240))
        before = used_bytes()
        assert 240 < asyncio.run(read_all(engine, 720)) < 600
        assert used_bytes() - before < MAX_GROWTH_BYTES
        assert engine.scheduler.preemptions > 0
