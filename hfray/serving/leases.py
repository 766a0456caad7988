"""A gateway's share of the quotas: a little is taken from the shared book in advance and spent here, so that most
requests wait for nobody. Knows keys and an async book; not where the book is.

If the book cannot be reached, every gateway grants each key its whole rate: it rather gives too much for a while than
turn everybody away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from hfray.serving.keys_file import Key
from hfray.serving.quota import Buckets, Kind, Rates, rates_of

LEASE_S = 0.5
"""A lease is what a key may use in so long."""
IDLE_S = 2.0
"""After so long without use, a lease goes back."""
FORGET_S = 60.0
ASK_TIMEOUT_S = 1.0
DOWN_S = 5.0
"""So long the book is not asked after it failed."""
REFUSED_S = 0.25
"""So long a refusal is repeated without asking: who asks too much must not keep the book busy."""
_SWEEP_EVERY_S = 0.5
_log = logging.getLogger(__name__)


class Ask(Protocol):
    """`QuotaBook.lease`, wherever it is."""

    async def __call__(
        self, key_id: str, kind: str, amount: float, rates: Rates, at_least: float, returned: float
    ) -> tuple[float, float]: ...


class _Holding:
    """What is left of one key's lease here; below 0 after more was used than was estimated."""

    def __init__(self, rates: Rates) -> None:
        self.rates = rates
        self.left = 0.0
        self.used_at = 0.0
        self.refused_until = 0.0
        self.refused_at_least = 0.0
        self.asking = asyncio.Lock()
        self.alone = Buckets(rates)


class Leases:
    """`allow` before a request, `settle` after it, `close` at the end. For one event loop."""

    def __init__(self, ask: Ask, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._holdings: dict[tuple[str, Kind], _Holding] = {}
        self._down_until = 0.0
        self._is_down = False
        self._sweeper: asyncio.Task[None] | None = None

    async def allow(self, key: Key, requests: float = 1, tokens: float = 0) -> float | None:
        """None: go on. Else the seconds to wait; infinity where the key's limits never allow as much at once."""
        wait_s = await self._take(key, "requests", requests)
        if wait_s is not None:
            return wait_s
        wait_s = await self._take(key, "tokens", tokens)
        if wait_s is not None:
            self._add(key, "requests", requests)
        return wait_s

    def settle(self, key: Key, tokens: float) -> None:
        """Tokens used minus those that `allow` was told of; the difference is taken, or given back."""
        self._add(key, "tokens", -tokens)

    def _add(self, key: Key, kind: Kind, amount: float) -> None:
        rates = rates_of(key, kind)
        if rates and amount:
            self._holding(key, kind, rates).left += amount
            self._sweep_soon()

    def _holding(self, key: Key, kind: Kind, rates: Rates) -> _Holding:
        holding = self._holdings.get((key.id, kind))
        if holding is None:
            holding = self._holdings[(key.id, kind)] = _Holding(rates)
        holding.rates = rates
        holding.used_at = self._clock()
        return holding

    async def _take(self, key: Key, kind: Kind, n: float) -> float | None:
        rates = rates_of(key, kind)
        if not rates or n <= 0:
            return None
        holding = self._holding(key, kind, rates)
        refused_s = self._take_here(holding, n)
        if refused_s is None:
            async with holding.asking:  # the others wait for this one's lease
                refused_s = self._take_here(holding, n)
                if refused_s is None:
                    refused_s = await self._lease(key.id, kind, holding, n)
        return refused_s or None

    def _take_here(self, holding: _Holding, n: float) -> float | None:
        """0: taken from what is left; above 0: refused a moment ago already; None: the book has to be asked."""
        if holding.left >= n:
            holding.left -= n
            return 0.0
        now = self._clock()
        return holding.refused_until - now if now < holding.refused_until and n >= holding.refused_at_least else None

    async def _lease(self, key_id: str, kind: Kind, holding: _Holding, n: float) -> float:
        """Takes n of a new lease; else says how long to wait."""
        ahead = min(rate.per_s for rate in holding.rates) * LEASE_S
        granted, wait_s = await self._call(key_id, kind, holding, max(n, ahead), n)
        self._sweep_soon()
        if wait_s > 0:
            holding.refused_until = self._clock() + min(wait_s, REFUSED_S)
            holding.refused_at_least = n
            return wait_s
        holding.left += granted - n
        return 0.0

    async def _call(
        self, key_id: str, kind: Kind, holding: _Holding, amount: float, at_least: float
    ) -> tuple[float, float]:
        returned, holding.left = holding.left, 0.0
        if self._clock() >= self._down_until:
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    answer = await self._ask(key_id, kind, amount, holding.rates, at_least, returned)
            except Exception as error:
                self._down_until = self._clock() + DOWN_S
                if not self._is_down:
                    _log.warning(
                        "the book of quotas does not answer (%s); each gateway counts alone", type(error).__name__
                    )
                self._is_down = True
            else:
                if self._is_down:
                    _log.warning("the book of quotas answers again")
                self._is_down = False
                return answer
        now = self._clock()
        holding.alone.fit(holding.rates, now)
        return holding.alone.lease(at_least, at_least, returned, now)

    def _sweep_soon(self) -> None:
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        while self._holdings:
            await asyncio.sleep(_SWEEP_EVERY_S)
            await self.return_idle()

    async def return_idle(self, idle_s: float = IDLE_S) -> None:
        """What was not used for so long goes back to the book, debts too; keys that stay away are forgotten."""
        now = self._clock()
        for (key_id, kind), holding in list(self._holdings.items()):
            if holding.left and now - holding.used_at >= idle_s and not holding.asking.locked():
                async with holding.asking:
                    await self._call(key_id, kind, holding, 0.0, 0.0)
            elif not holding.left and now - holding.used_at >= FORGET_S and not holding.asking.locked():
                del self._holdings[(key_id, kind)]

    async def close(self) -> None:
        """Gives back everything that is held."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self.return_idle(0.0)
