"""The batch engine: length-sorted batches under a token budget, order restored. Knows items; not text, not rows.

One thread owns the model; callers submit and wait on a future. Whatever waits is taken together, so that a few
small requests share a batch, while a whole shard already fills many.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from hfray.engines import generate
from hfray.engines.base import EngineStats, Outputs
from hfray.engines.budget import Budget
from hfray.engines.failures import (
    as_engine_error,
    input_problem,
    is_device_lost,
    is_out_of_memory,
    model_failure,
    vocab_size,
)
from hfray.engines.forward import cost_tokens, run_batch
from hfray.engines.reuse import OutputCache, group_equal
from hfray.errors import EngineError, ItemError
from hfray.models.load import LoadedModel
from hfray.types import Item, Output, Pool

CPU_BATCH_TOKENS = 2048  # activations of a larger batch fall out of the processor's cache
GPU_BATCH_TOKENS = 16384
LEAST_FILL = 0.95
MERGE_BATCHES = 16


@dataclass(slots=True)
class _Request:
    items: Sequence[Item]
    future: Future[Outputs]


class BatchEngine:
    """Runs forward items and static generation batches of one model.

    Out of memory halves the token budget for a while and goes on; any other failure splits the batch until the guilty
    item stands alone and becomes an ItemError.

    merge_batches: submissions that wait are taken together up to this many full batches. With 0 each is computed by
    itself, so that its outputs are the same to the last bit whatever else was waiting.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        max_batch_tokens: int | Literal["auto"] = "auto",
        max_batch_items: int = 1024,
        merge_batches: int = MERGE_BATCHES,
    ) -> None:
        self.stats = EngineStats()
        self._loaded = loaded
        auto = CPU_BATCH_TOKENS if loaded.device.type == "cpu" else GPU_BATCH_TOKENS
        self._budget = Budget(auto if max_batch_tokens == "auto" else max_batch_tokens)
        self._max_batch_items = max_batch_items
        self._merge_batches = merge_batches
        self._vocab_size = vocab_size(loaded.model)
        self._cache = OutputCache()
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._order = threading.Lock()  # nothing is queued behind the end mark, where nobody would answer it
        self._thread = threading.Thread(target=self._serve, name="hfray-engine", daemon=True)
        self._thread.start()

    def submit(self, items: Sequence[Item]) -> Future[Outputs]:
        future: Future[Outputs] = Future()
        with self._order:
            if not self._closed.is_set():
                self._queue.put(_Request(items, future))
                return future
        future.set_exception(EngineError("the engine is closed"))
        return future

    def run(self, items: Sequence[Item]) -> Outputs:
        return self.submit(items).result()

    def close(self) -> None:
        with self._order:
            if not self._closed.is_set():
                self._closed.set()
                self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def max_batch_tokens(self) -> int:
        """The budget in force; lower than the one asked for after an out-of-memory."""
        return self._budget.now

    def _serve(self) -> None:
        with torch.inference_mode():
            while (waiting := self._next_requests()) is not None:
                # A caller that gave up cannot be answered: setting a cancelled future's result raises.
                requests = [request for request in waiting if request.future.set_running_or_notify_cancel()]
                started = time.perf_counter()
                try:
                    outputs = self._run_all([item for request in requests for item in request.items])
                except BaseException as error:
                    for request in requests:
                        request.future.set_exception(as_engine_error(error))
                    continue
                finally:
                    self.stats.seconds += time.perf_counter() - started
                    self.stats.working_since = None
                start = 0
                for request in requests:
                    request.future.set_result(outputs[start : start + len(request.items)])
                    start += len(request.items)
        while not self._queue.empty():
            left = self._queue.get()
            if left is not None:
                left.future.set_exception(EngineError("the engine was closed before it ran this"))

    def _next_requests(self) -> list[_Request] | None:
        first = self._queue.get()
        if first is None:
            return None
        requests = [first]
        room = self.max_batch_tokens * self._merge_batches - sum(map(self._cost, first.items))
        while room > 0 and not self._queue.empty():
            request = self._queue.get()
            if request is None:
                self._queue.put(None)
                break
            requests.append(request)
            room -= sum(map(self._cost, request.items))
        return requests

    def _run_all(self, items: list[Item]) -> Outputs:
        """Deduplicates, groups what may share a batch, runs, and puts every output back in its place."""
        self.stats.items += len(items)
        unique = group_equal(items)
        results: list[Output | ItemError | None] = [None] * len(unique)
        groups: dict[Any, list[int]] = {}
        for number, (item, key, _) in enumerate(unique):
            cached = self._cache.get(key) if item.reuse == "job" else None
            if cached is not None:
                results[number] = cached
            elif (problem := input_problem(item, self._vocab_size, self._loaded.adapters)) is not None:
                results[number] = problem
            else:
                groups.setdefault(_batch_key(item), []).append(number)
        for numbers in groups.values():
            self._run_group(unique, numbers, results)
        outputs: list[Output | ItemError | None] = [None] * len(items)
        for (item, key, places), result in zip(unique, results, strict=True):
            if item.reuse == "job" and isinstance(result, dict):
                self._cache.put(key, result)
            for place in places:
                outputs[place] = result
        return [_present(output) for output in outputs]

    def _run_group(
        self, unique: list[tuple[Item, bytes, list[int]]], numbers: list[int], results: list[Output | ItemError | None]
    ) -> None:
        # Longest first: an out-of-memory shows in the first batch, not in the last.
        pending = sorted(numbers, key=lambda number: -self._cost(unique[number][0]))
        costs = [self._cost(unique[number][0]) for number in pending]
        start = 0
        while start < len(pending):
            stop = self._batch_end(costs, start)
            done = self._run_batch([unique[number][0] for number in pending[start:stop]])
            if done is None:  # out of memory: the budget is smaller now, try again from the same place
                continue
            for number, output in zip(pending[start:stop], done, strict=True):
                results[number] = output
            start = stop

    def _batch_end(self, costs: Sequence[int], start: int) -> int:
        """Where a batch of descending costs that begins at `start` ends: at the budget, or earlier where a batch that
        is worth its launch would have to pad by more than a twentieth to take the next item."""
        longest = costs[start]
        stop = min(len(costs), start + max(1, min(self._max_batch_items, self.max_batch_tokens // longest)))
        enough = start + max(1, self.max_batch_tokens // longest // 4)
        for end in range(enough, stop):
            if costs[end] < longest * LEAST_FILL:
                return end
        return stop

    def _run_batch(self, items: list[Item]) -> Outputs | None:
        """The outputs; None when memory ran out and the budget was lowered. Raises EngineError for a lost device."""
        self._begin_step()
        try:
            with self._adapted(items[0].adapter):
                outputs = run_batch(self._loaded, items, self._begin_step)
        except Exception as error:
            if is_out_of_memory(error):
                return self._out_of_memory(items)
            if is_device_lost(error):
                raise EngineError(f"the device is lost: {str(error).splitlines()[0]}") from error
            if len(items) == 1:
                return [model_failure(error)]
            middle = len(items) // 2
            halves = [self._run_batch(items[:middle]), self._run_batch(items[middle:])]
            return None if None in halves else [output for half in halves for output in half or ()]
        self._budget.worked()
        self._count(items, outputs)
        return [_finite(output) for output in outputs]

    def _begin_step(self) -> None:
        """A text of a thousand tokens takes long and is no step that is stuck: each token begins a new one."""
        self.stats.working_since = time.monotonic()

    def _adapted(self, adapter: str | None) -> AbstractContextManager[None]:
        """The model as the items of a batch want it; they have one adapter."""
        bank = self._loaded.adapters
        if adapter is None or bank is None:
            return nullcontext()
        bank.ensure([adapter])
        return bank.routed([(adapter, None)])

    def _out_of_memory(self, items: list[Item]) -> Outputs | None:
        self.stats.out_of_memory += 1
        if self._loaded.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(items) == 1:
            message = f"the device has too little memory for this input alone ({self._cost(items[0]):,} tokens)"
            return [ItemError(message, type="OutOfMemory")]
        self._budget.ran_out(len(items) * max(map(self._cost, items)))
        return None

    def _count(self, items: list[Item], outputs: list[Output]) -> None:
        stats = self.stats
        stats.batches += 1
        stats.computed_items += len(items)
        lengths = [cost_tokens(item) for item in items]
        stats.tokens += sum(lengths)
        stats.padded_tokens += max(lengths) * len(lengths)
        if items[0].generation is not None:
            stats.generated_tokens += sum(len(output["tokens"]) for output in outputs)

    def _cost(self, item: Item) -> int:
        return cost_tokens(item) if item.generation is None else generate.cost_tokens(item)


def _batch_key(item: Item) -> Any:
    reduce = item.reduce
    pooling = (reduce.mode, reduce.normalize) if isinstance(reduce, Pool) else None
    shape = item.inputs["pixel_values"].shape if item.kind == "image" else None
    generation = None if item.generation is None else generate.generation_key(item.generation)
    return (item.kind, type(reduce), pooling, shape, item.adapter, generation, tuple(item.inputs))


def _finite(output: Output) -> Output | ItemError:
    for name, value in output.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
            return ItemError(f"the model's {name} are not finite numbers", type="NonFiniteOutput")
    return output


def _present(output: Output | ItemError | None) -> Output | ItemError:
    if output is None:
        raise EngineError("the engine lost an item; this is a mistake in hfray")
    return output
