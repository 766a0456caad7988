"""An engine without a model: outputs made from a digest of the inputs. Carries everything above the engine in tests
and in scale runs; equal items give equal outputs on every machine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from hfray.engines.base import EngineStats, Outputs, TokenScores, score_arrays
from hfray.types import (
    Array,
    Features,
    Generated,
    Item,
    Logits,
    MaskScores,
    NextTokens,
    Output,
    Pool,
    Spans,
    TokenLogits,
)

EMBEDDING_SIZE = 8


class FakeEngine:
    """Takes `seconds_per_item` for each item, so that a run can be made as slow as a model."""

    def __init__(self, *, num_labels: int = 2, seconds_per_item: float = 0.0) -> None:
        self.stats = EngineStats()
        self._num_labels = num_labels
        self._seconds_per_item = seconds_per_item
        self._closed = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hfray-engine")

    def submit(self, items: Sequence[Item]) -> Future[Outputs]:
        return self._pool.submit(self._run, items)

    def run(self, items: Sequence[Item]) -> Outputs:
        return self.submit(items).result()

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        self._closed = True

    @property
    def alive(self) -> bool:
        return not self._closed

    def _run(self, items: Sequence[Item]) -> Outputs:
        started = time.perf_counter()
        if self._seconds_per_item:
            time.sleep(self._seconds_per_item * len(items))
        outputs: Outputs = [self._output(item) for item in items]
        stats = self.stats
        stats.items += len(items)
        stats.computed_items += len(items)
        stats.batches += 1
        stats.tokens += sum(item.num_tokens for item in items)
        stats.padded_tokens += sum(item.num_tokens for item in items)
        stats.seconds += time.perf_counter() - started
        return outputs

    def _output(self, item: Item) -> Output:
        random = _Digits(item)
        reduce = item.reduce
        if isinstance(reduce, Logits):
            return {"logits": random.floats(self._num_labels)}
        if isinstance(reduce, TokenLogits):
            return {"logits": random.floats(item.num_tokens * self._num_labels).reshape(-1, self._num_labels)}
        if isinstance(reduce, Spans):
            return {"start": random.floats(item.num_tokens), "end": random.floats(item.num_tokens)}
        if isinstance(reduce, Pool) and reduce.mode == "none":
            return {"embedding": random.floats(item.num_tokens * EMBEDDING_SIZE).reshape(-1, EMBEDDING_SIZE)}
        if isinstance(reduce, (Pool, Features)):
            vector = random.floats(EMBEDDING_SIZE)
            return {"embedding": vector / np.linalg.norm(vector)}
        if isinstance(reduce, MaskScores):
            candidates = np.array(reduce.targets or range(reduce.top_k), dtype=np.int64)[: reduce.top_k]
            ids = np.tile(candidates, (len(reduce.positions), 1))
            return {"ids": ids, "scores": np.full(ids.shape, 1 / ids.shape[1], dtype=np.float32)}
        if isinstance(reduce, NextTokens):
            return {"logprobs": random.floats(item.num_tokens - reduce.first) - 1}
        if isinstance(reduce, Generated):
            limit = 4 if item.generation is None else min(4, item.generation.max_new_tokens)
            tokens = np.asarray(item.inputs["input_ids"][:limit], dtype=np.int64)
            output: Output = {"tokens": tokens, "finish": "length"}
            num_top = None if item.generation is None else item.generation.logprobs
            if num_top is not None:
                told = TokenScores(-1.0, tuple(range(num_top)), (-1.0,) * num_top)
                output |= score_arrays([told] * len(tokens), num_top)
            return output
        raise TypeError(f"no fake output for {type(reduce).__name__}")


class _Digits:
    """Floats in (-1, 1) drawn from a digest of one item."""

    def __init__(self, item: Item) -> None:
        digest = hashlib.blake2b(digest_size=8)
        for name, array in item.inputs.items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).data)
        self._generator = np.random.Generator(np.random.Philox(int.from_bytes(digest.digest(), "little")))

    def floats(self, count: int) -> Array:
        return self._generator.uniform(-1, 1, count).astype(np.float32)
