"""What a step of the continuous engine takes, and how soon a late request is answered: sections `decode` and `late` of
benchmarks/generate.py."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.generate_models import Request, item_of, llama, tokens_of
from benchmarks.measure import ROUNDS, table
from hfray.engines.continuous.engine import BLOCK_TOKENS, ContinuousEngine
from hfray.engines.threads import in_brief_thread

PROMPT, FEW, MANY = 32, 8, 72
LATE_PROMPTS = (64, 200, 400)
LOAD = 16


def decode(shapes: Sequence[str], dtypes: Sequence[torch.dtype], batches: Sequence[int] = (8, 32, 64)) -> None:
    """Steady decode against the matrix products of the batch's own shapes, and where the rest of a step goes. The
    bounds: the linear layers alone; and these with attention's own two products, over caches as long as the batch's
    are on average."""
    rows, profiles = [], []
    for shape, dtype in itertools.product(shapes, dtypes):
        model = in_brief_thread(llama, shape, dtype)
        label = f"{shape}, {str(dtype).removeprefix('torch.')}"
        for size in batches:
            found = []
            for _ in range(ROUNDS):
                products_s = in_brief_thread(linear_s, model, size, dtype)
                found.append(
                    (_step_s(model, size), products_s, products_s + in_brief_thread(_attended_s, model, size, dtype))
                )
            step_s = statistics.median(each for each, *_ in found)
            shares = (statistics.median(each[place] / each[0] for each in found) for place in (1, 2))
            cells = [f"{100 * share:.0f} %" for share in shares]
            rows.append([f"{label}: {size}", f"{1000 * step_s:.1f}", f"{size / step_s:.0f}", *cells])
        profiles.append([f"{label}: {batches[-1]}", *_profile(model, batches[-1])])
    header = ["sequences", "ms a step", "tokens/s", "linear layers alone", "with attention's products"]
    table("Steady decode", header, rows)
    table("Where a step goes", ["sequences", *_KINDS, "everything else"], profiles)


def _step_s(model: Any, size: int) -> float:
    """Seconds of one decode of the whole batch: what more tokens add to a run, by each of them."""
    with _engine(model, max_running=size) as engine:
        seconds = []
        for new in (FEW, FEW, MANY):
            asked = [_request(number, PROMPT, new) for number in range(size)]
            started = time.perf_counter()
            engine.run([item_of(each) for each in asked])
            seconds.append(time.perf_counter() - started)
    return (seconds[2] - seconds[1]) / (MANY - FEW)


def linear_s(model: Any, size: int, dtype: torch.dtype) -> float:
    """Seconds of all linear layers of a model, or of a part of one, over one batch, one after another."""
    layers = [each for each in model.modules() if isinstance(each, torch.nn.Linear)]
    inputs = {each.in_features: torch.randn(size, each.in_features, dtype=dtype) for each in layers}
    seconds = []
    with torch.inference_mode():
        for _ in range(30):
            started = time.perf_counter()
            for layer in layers:
                layer(inputs[layer.in_features])
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _attended_s(model: Any, size: int, dtype: torch.dtype) -> float:
    """Seconds of all layers' products of queries with keys and of weights with values, block by block."""
    config = model.config
    kv_heads, dim = config.num_key_value_heads, config.head_dim
    blocks = size * -(-(PROMPT + (FEW + MANY) // 2) // BLOCK_TOKENS)
    query = torch.randn(blocks, kv_heads, config.num_attention_heads // kv_heads, dim, dtype=dtype)
    caches = torch.randn(config.num_hidden_layers, 2, blocks, kv_heads, BLOCK_TOKENS, dim, dtype=dtype)
    weights = torch.rand(*query.shape[:-1], BLOCK_TOKENS, dtype=dtype)
    seconds = []
    with torch.inference_mode():
        for _ in range(10):
            started = time.perf_counter()
            for keys, values in caches:
                torch.matmul(query, keys.transpose(2, 3))
                torch.matmul(weights, values)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


_KINDS: dict[str, Callable[[str], bool]] = {
    "matrix products": lambda name: name in ("aten::addmm", "aten::mm", "aten::linear", "aten::mkldnn_linear"),
    "attention": lambda name: "attention" in name or name in ("aten::bmm", "aten::softmax", "aten::_softmax"),
    "cache and indexes": lambda name: "index" in name or "copy" in name or "scatter" in name or "gather" in name,
}


def _profile(model: Any, size: int) -> list[str]:
    """Shares of a run's time by kind of operation; what is left is Python, norms, rotations and sampling."""
    from torch._C._profiler import _ExperimentalConfig
    from torch.profiler import ProfilerActivity, profile

    with _engine(model, max_running=size) as engine:
        items = [item_of(_request(number, PROMPT, MANY)) for number in range(size)]
        with profile(
            activities=[ProfilerActivity.CPU], experimental_config=_ExperimentalConfig(profile_all_threads=True)
        ) as seen:
            started = time.perf_counter()
            engine.run(items)
            wall_us = 1e6 * (time.perf_counter() - started)
    shares = dict.fromkeys(_KINDS, 0.0)
    for event in seen.key_averages():
        kind = next((kind for kind, holds in _KINDS.items() if holds(event.key)), None)
        if kind is not None:
            shares[kind] += event.self_cpu_time_total / wall_us
    return [f"{100 * each:.0f} %" for each in (*shares.values(), 1 - sum(shares.values()))]


def late(shape: str, dtype: torch.dtype) -> None:
    """Time to the first token of a request that arrives while others decode."""
    model = in_brief_thread(llama, shape, dtype)
    rows = []
    with _engine(model, max_running=2 * LOAD) as engine:
        for length in LATE_PROMPTS:
            found = []
            for number in range(2 * ROUNDS + 1):
                alone_s = asyncio.run(_first_s(engine, _request(1000 + number, length, 1)))
                found.append((alone_s, *asyncio.run(_under_load(engine, length, number))))
            alone, step, first = (statistics.median(each) for each in zip(*found[1:], strict=True))
            bound = alone + 2 * step
            times = [f"{1000 * each:.0f}" for each in (alone, step, bound, first)]
            rows.append([f"{length} tokens", *times, f"{first / bound:.2f}"])
    header = ["prompt", "prefill alone, ms", "a step under load, ms", "prefill and two steps, ms", "first token, ms"]
    name = str(dtype).removeprefix("torch.")
    table(f"A late request beside {LOAD} others ({shape}, {name})", [*header, "of the bound"], rows)


async def _under_load(engine: ContinuousEngine, length: int, number: int) -> tuple[float, float]:
    """(seconds between the tokens of a request that was there, seconds to the first token of a late one)."""
    others = [item_of(_request(2000 + 100 * number + each, PROMPT, 10_000)) for each in range(LOAD)]
    stamps: list[float] = []

    async def read(item: Any) -> None:
        async for _ in engine.stream(item):
            if item is others[0]:
                stamps.append(time.perf_counter())

    tasks = [asyncio.create_task(read(each)) for each in others]
    while len(stamps) < 20:
        await asyncio.sleep(0.002)
    before = list(stamps)
    first_s = await _first_s(engine, _request(3000 + 100 * number, length, 1))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return statistics.median(b - a for a, b in itertools.pairwise(before[5:])), first_s


async def _first_s(engine: ContinuousEngine, request: Request) -> float:
    started = time.perf_counter()
    async for _ in engine.stream(item_of(request)):
        return time.perf_counter() - started
    raise RuntimeError("no token came")


def _request(seed: int, length: int, new: int) -> Request:
    """No two begin alike, so that none finds its prefix computed."""
    return tokens_of(seed, length), new


@contextlib.contextmanager
def _engine(model: Any, **settings: Any) -> Iterator[ContinuousEngine]:
    loaded: Any = SimpleNamespace(model=model, device=torch.device("cpu"), adapters=None)
    engine = in_brief_thread(ContinuousEngine, loaded, **settings)
    try:
        yield engine
    finally:
        engine.close()
