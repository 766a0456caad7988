"""The continuous engine: sequences join and leave a running batch between steps. Knows items, futures and the order of
a step; how a step is chosen and computed is the scheduler's and the runner's.

One thread owns the model. Out of memory halves the tokens of a step for a while and goes on; any other failure tries
the sequences of the failed step alone, until the guilty one stands out and becomes an ItemError.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import AsyncIterator
from collections.abc import Sequence as Many
from concurrent.futures import Future
from dataclasses import replace
from typing import Literal

import torch

from hfray.engines.base import EngineStats, Outputs, Token
from hfray.engines.continuous.cache import BlockCache
from hfray.engines.continuous.proof import position_limit
from hfray.engines.continuous.receivers import Places, Request, TokenStream, tell
from hfray.engines.continuous.runner import Runner
from hfray.engines.continuous.scheduler import Scheduler, Slice
from hfray.engines.continuous.sequence import Receiver, Sequence
from hfray.engines.failures import (
    as_engine_error,
    input_problem,
    is_device_lost,
    is_out_of_memory,
    model_failure,
    vocab_size,
)
from hfray.engines.reuse import OutputCache, group_equal
from hfray.errors import EngineError, ItemError
from hfray.models.load import LoadedModel
from hfray.types import Item, Output

BLOCK_TOKENS = 32
CPU_STEP_TOKENS = 256
CPU_JOB_STEP_TOKENS = 1024  # more texts decode together the sooner their prompts are read
GPU_STEP_TOKENS = 4096
CPU_RUNNING = 64
GPU_RUNNING = 256


class ContinuousEngine:
    """Generates with one decoder-only model.

    cache_bytes: most bytes of keys and values; "auto": a share of the free memory. max_step_tokens: most tokens fed to
    the model at once, decodes and pieces of prompts together. max_running: most sequences with a place in the batch.
    device_share: how much of a GPU is this worker's. online: whether somebody waits for each token, which a step with
    long pieces of prompts holds up. Raises SpecError for a model that cannot be run so.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        cache_bytes: int | Literal["auto"] = "auto",
        max_step_tokens: int | Literal["auto"] = "auto",
        max_running: int | Literal["auto"] = "auto",
        block_tokens: int = BLOCK_TOKENS,
        device_share: float = 1.0,
        online: bool = True,
    ) -> None:
        cpu = loaded.device.type == "cpu"
        running = (CPU_RUNNING if cpu else GPU_RUNNING) if max_running == "auto" else max_running
        own = (CPU_STEP_TOKENS if online else CPU_JOB_STEP_TOKENS) if cpu else GPU_STEP_TOKENS
        tokens = own if max_step_tokens == "auto" else max_step_tokens
        self.stats = EngineStats()
        self._runner = Runner(
            loaded,
            cache_bytes=None if cache_bytes == "auto" else cache_bytes,
            block_tokens=block_tokens,
            device_share=device_share,
        )
        self.cache = BlockCache(self._runner.num_blocks, block_tokens)
        self._adapters = loaded.adapters
        self.scheduler = Scheduler(
            self.cache,
            max_step_tokens=max(tokens, running),
            max_running=running,
            max_adapters=None if loaded.adapters is None else loaded.adapters.max_loaded,
        )
        self._vocab_size = vocab_size(loaded.model)
        self._position_limit = position_limit(loaded.model)
        self._outputs = OutputCache()
        self._arrivals = 0
        self._inbox: queue.SimpleQueue[Sequence | None] = queue.SimpleQueue()
        self._closed = False
        self._order = threading.Lock()  # nothing is queued behind the end mark, where nobody would answer it
        self._thread = threading.Thread(target=self._serve, name="hfray-engine", daemon=True)
        self._thread.start()

    def submit(self, items: Many[Item]) -> Future[Outputs]:
        future: Future[Outputs] = Future()
        request = Request(len(items), future)
        with self._order:
            self.stats.items += len(items)
        if not items:
            future.set_result([])
        # Those of one adapter together: fewer adapters are then wanted at a time.
        for item, key, places in sorted(group_equal(items), key=lambda each: each[0].adapter or ""):
            cached = self._outputs.get(key) if item.reuse == "job" else None
            answer = cached if cached is not None else self._problem(item)
            if answer is not None:
                request.answer(places, answer)
                continue

            def keep(output: Output, key: bytes = key) -> None:
                self._outputs.put(key, output)

            self._enqueue(item, Places(request, places, keep if item.reuse == "job" else None))
        return future

    def run(self, items: Many[Item]) -> Outputs:
        return self.submit(items).result()

    async def stream(self, item: Item) -> AsyncIterator[Token]:
        problem = self._problem(item)
        if problem is not None:
            raise problem
        receiver = TokenStream(asyncio.get_running_loop())
        with self._order:
            self.stats.items += 1
        self._enqueue(item, receiver)
        tokens = receiver.read()
        try:
            async for token in tokens:
                yield token
        finally:
            await tokens.aclose()

    def close(self) -> None:
        with self._order:
            if not self._closed:
                self._closed = True
                self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _enqueue(self, item: Item, receiver: Receiver) -> None:
        with self._order:
            if not self._closed:
                self._arrivals += 1
                self._inbox.put(Sequence.of(item, receiver, self._arrivals, self._runner.long_from))
                return
        receiver.fail(EngineError("the engine is closed"))

    def _serve(self) -> None:
        error = EngineError("the engine was closed before it ran this")
        try:
            with torch.inference_mode():
                while self._take():
                    started = time.perf_counter()
                    self.stats.working_since = time.monotonic()
                    self._advance()
                    self.stats.working_since = None
                    self.stats.seconds += time.perf_counter() - started
        except BaseException as caught:
            error = as_engine_error(caught)
        with self._order:
            self._closed = True
        self._fail_all(error)
        self._runner.close()

    def _take(self) -> bool:
        """New sequences into the schedule; waits for one when there is nothing to do. False: the engine is closed."""
        idle = not self.scheduler.running and not self.scheduler.waiting
        while idle or not self._inbox.empty():
            sequence = self._inbox.get()
            if sequence is None:
                return False
            self.scheduler.add(sequence)
            idle = False
        return True

    def _advance(self) -> None:
        self._drop_cancelled()
        slices = self.scheduler.schedule()
        if not slices:
            self._give_up()
            return
        try:
            drawn = self._runner.step(slices, self.cache.take_fresh())
        except Exception as error:
            self.scheduler.undo(slices)
            self._failed(slices, error)
            return
        self.scheduler.advance(slices)
        self._count(slices)
        try:
            for sequence, token in drawn:
                sequence.suspect = False
                self._accept(sequence, token)
        finally:  # what has ended is in no schedule any more: should the engine fail here, nobody else would tell
            tell(sequence.receiver for sequence, _ in drawn)

    def _accept(self, sequence: Sequence, token: Token | None) -> None:
        if token is None:
            self.scheduler.remove(sequence, forget=True)
            problem = ItemError("the model's scores are not finite numbers", type="NonFiniteOutput")
            sequence.receiver.done(problem)
            return
        self.stats.generated_tokens += 1
        try:
            finish = sequence.append(token.id, token.scores)
        except Exception as error:
            self.scheduler.remove(sequence)
            sequence.receiver.done(model_failure(error))
            return
        if finish is not None:
            self.scheduler.remove(sequence)
            self.stats.computed_items += 1
        elif sequence.has_become_long:
            self.scheduler.again(sequence)
        sequence.receiver.token(replace(token, finish=finish))
        if finish is not None:
            sequence.receiver.done(sequence.output(finish))

    def _drop_cancelled(self) -> None:
        gone = [each for each in self.scheduler.running if each.receiver.cancelled]
        gone += itertools.takewhile(lambda each: each.receiver.cancelled, self.scheduler.waiting)
        for sequence in gone:
            self.scheduler.remove(sequence)
            sequence.receiver.done(ItemError("its caller gave up", type="Cancelled"))

    def _give_up(self) -> None:
        """Of a sequence that even the whole cache cannot hold."""
        sequence = self.scheduler.stuck()
        if sequence is not None:
            self.scheduler.remove(sequence)
            room = self.cache.num_blocks * self.cache.block_tokens
            message = f"the key-value cache has room for {room:,} tokens, prompt and text together; raise cache_bytes"
            sequence.receiver.done(ItemError(message, type="CacheTooSmall"))

    def _failed(self, slices: Many[Slice], error: Exception) -> None:
        if is_device_lost(error):
            raise EngineError(f"the device is lost: {str(error).splitlines()[0]}") from error
        memory = is_out_of_memory(error)
        if memory:
            self._out_of_memory(sum(each.count for each in slices))
        if len(slices) > 1 or (memory and slices[0].count > 1):
            for each in slices:
                each.sequence.suspect = not memory
            return
        sequence = slices[0].sequence
        self.scheduler.remove(sequence)
        if memory:
            message = f"the device has too little memory for this input alone ({len(sequence.tokens):,} tokens)"
            sequence.receiver.done(ItemError(message, type="OutOfMemory"))
        else:
            sequence.receiver.done(model_failure(error))

    def _out_of_memory(self, num_tokens: int) -> None:
        self.stats.out_of_memory += 1
        torch.cuda.empty_cache()  # nothing without CUDA
        self.scheduler.budget.ran_out(num_tokens)

    def _fail_all(self, error: EngineError) -> None:
        left = [*self.scheduler.running, *self.scheduler.waiting]
        while not self._inbox.empty():
            sequence = self._inbox.get()
            if sequence is not None:
                left.append(sequence)
        for sequence in left:
            sequence.receiver.fail(error)

    def _count(self, slices: Many[Slice]) -> None:
        num_tokens = sum(each.count for each in slices)
        self.stats.batches += 1
        self.stats.tokens += num_tokens
        self.stats.padded_tokens += num_tokens

    def _problem(self, item: Item) -> ItemError | None:
        problem = input_problem(item, self._vocab_size, self._adapters)
        if problem is not None:
            return problem
        params = item.generation
        if item.kind != "causal" or params is None or params.num_beams > 1:
            return ItemError("the continuous engine continues prompts, without beams", type="WrongKind")
        total = item.num_tokens + params.max_new_tokens
        if self._position_limit is not None and total > self._position_limit:
            return ItemError(
                f"the prompt has {item.num_tokens:,} tokens; with max_new_tokens {params.max_new_tokens:,} it is over "
                f"the model's {self._position_limit:,} positions",
                type="PromptTooLong",
            )
        return None
