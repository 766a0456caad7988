"""What a model's process measures, as Prometheus metrics that Ray exports on every node. Knows an engine's counters and
Ray's metrics; not requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from hfray.engines.base import EngineStats

EVERY_S = 5.0


class ModelMeters:
    """Of one replica: `keep` runs for its life."""

    def __init__(self, model: str, stats: EngineStats, num_ongoing: Callable[[], int]) -> None:
        from ray.util.metrics import Counter, Gauge

        self._stats = stats
        self._num_ongoing = num_ongoing
        self._seen = EngineStats()
        self._tags = {"model": model}
        tags = ("model",)
        self._counters = {
            name: Counter(f"hfray_model_{name}", text, tag_keys=tags)
            for name, text in (
                ("items", "Inputs of the model"),
                ("batches", "Batches, or steps of the continuous engine"),
                ("tokens", "Positions computed, padding apart"),
                ("padded_tokens", "Positions computed, padding included"),
                ("generated_tokens", "Tokens generated"),
                ("seconds", "Time in which the model worked"),
                ("out_of_memory", "Times that memory ran out and batches were made smaller"),
            )
        }
        self._gauges = {
            name: Gauge(f"hfray_model_{name}", text, tag_keys=tags)
            for name, text in (
                ("ongoing_requests", "Requests in the replica"),
                ("batch_items", "Inputs of a batch, on the average of the last seconds"),
                ("padding_share", "Share of positions that are padding, of the last seconds"),
            )
        }

    async def keep(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            self.tell()

    def tell(self) -> None:
        """What was done since the last time."""
        now = replace(self._stats)
        done = {name: getattr(now, name) - getattr(self._seen, name) for name in self._counters}
        self._seen = now
        for name, amount in done.items():
            if amount > 0:
                self._counters[name].inc(amount, self._tags)
        self._gauges["ongoing_requests"].set(self._num_ongoing(), self._tags)
        if done["batches"]:
            self._gauges["batch_items"].set(done["items"] / done["batches"], self._tags)
        if done["padded_tokens"]:
            self._gauges["padding_share"].set(1 - done["tokens"] / done["padded_tokens"], self._tags)
