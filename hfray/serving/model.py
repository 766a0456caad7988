"""A replica as Ray Serve calls it. Knows what Serve asks of one; answering is `replica.py`'s."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from hfray.errors import RowError
from hfray.inference.model_use import CheckedModel
from hfray.serving import scaling
from hfray.serving.messages import Ask, Piece, Reply
from hfray.serving.model_meters import ModelMeters
from hfray.serving.replica import Replica
from hfray.spec.endpoint import EndpointSpec

LOAD_FRESH_S = 5.0
EXIT_AFTER_S = 0.2
"""For answers that are on their way."""
log = logging.getLogger("hfray.serving")

Load = tuple[str, int]
"""A gateway, and how many requests it has for the model."""


class Model:
    """The deployment of a model's application."""

    def __init__(self, checked: CheckedModel, spec: EndpointSpec) -> None:
        from ray import serve

        self._replica = Replica(checked, spec)
        name = serve.get_replica_context().app_name
        meters = ModelMeters(name, self._replica.engine.stats, lambda: self._replica.num_ongoing)
        self._metering = asyncio.get_running_loop().create_task(meters.keep())
        self._loads: dict[str, tuple[int, float]] = {}

    def reconfigure(self, card: dict[str, Any]) -> None:
        """The card is the gateway's; the constructor has all that a replica needs."""

    async def predict(self, asks: list[Ask], load: Load | None = None) -> list[Reply]:
        self._saw(load)
        return await self._replica.predict(asks)

    async def stream(self, ask: Ask, load: Load | None = None) -> AsyncIterator[list[Piece] | RowError]:
        """What is wrong with a request comes as the last thing: what is raised here Ray Serve writes into its log, and
        a message may have words of the request."""
        self._saw(load)
        try:
            async for pieces in self._replica.stream(ask):
                yield pieces
        except RowError as error:
            yield error

    async def check_health(self) -> None:
        """A model that is lost takes its process along: Ray Serve then replaces it at once, while it would give one
        that only reports it three more periods, and callers would wait for it. The check gets no answer: Ray Serve
        would wait a period after one before it asks again, and see only then that nobody is there."""
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._replica.health.check)
        except Exception as error:
            log.error("the replica ends, for Ray Serve to start another: %s", error)
            await asyncio.sleep(EXIT_AFTER_S)
            os._exit(1)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `scaling.requests_per_replica` reads."""
        now = time.monotonic()
        self._loads = {name: seen for name, seen in self._loads.items() if now - seen[1] < LOAD_FRESH_S}
        fresh = sum(load for load, _ in self._loads.values())
        return {scaling.SEEN: float(fresh), scaling.OWN: float(self._replica.num_ongoing)}

    def _saw(self, load: Load | None) -> None:
        if load is not None:
            self._loads[load[0]] = (load[1], time.monotonic())

    async def __del__(self) -> None:
        replica = getattr(self, "_replica", None)
        if replica is not None:
            self._metering.cancel()
            await asyncio.get_running_loop().run_in_executor(None, replica.close)
