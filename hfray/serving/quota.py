"""How much each key may use: token buckets, and the book of them that all gateways share. Knows rates and clocks; not
HTTP, not Ray. https://en.wikipedia.org/wiki/Token_bucket

A bucket holds a whole minute's (or day's) amount, so somebody who rested may use that at once: over any t seconds no
key is granted more than rate * t + burst.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from hfray.serving.keys_file import Key

Kind = Literal["requests", "tokens"]

MAX_KEYS = 10_000
_ROUNDING = 1e-6
"""So much less than wanted is enough: who waits as long as told must not be one rounding error short."""


@dataclass(frozen=True, slots=True)
class Rate:
    """per_s: what flows in; burst: what the bucket holds."""

    per_s: float
    burst: float


Rates = tuple[Rate, ...]


@lru_cache(maxsize=1024)
def rates_of(key: Key, kind: Kind) -> Rates:
    """The limits of a key that all hold at once; () without any."""
    limits = {
        "requests": ((key.requests_per_minute, 60),),
        "tokens": ((key.tokens_per_minute, 60), (key.tokens_per_day, 86_400)),
    }
    return tuple(Rate(amount / period_s, amount) for amount, period_s in limits[kind] if amount is not None)


class Bucket:
    """Full at first. `now` is seconds of any clock that does not jump back; a step back counts as none."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._level = burst
        self._filled_at: float | None = None

    def take(self, n: float, now: float) -> float:
        """Seconds until n are there; 0 if they were and are taken now, infinity if the bucket never holds as many."""
        wait_s = self.wait_s(n, now)
        if wait_s == 0:
            self._level -= n
        return wait_s

    def wait_s(self, n: float, now: float) -> float:
        """As `take`, and takes nothing."""
        missing = n - self.level(now)
        if missing <= _ROUNDING:
            return 0.0
        return missing / self.rate_per_s if n <= self.burst else math.inf

    def level(self, now: float) -> float:
        """What is there; below 0 after more was used than had been taken."""
        if self._filled_at is None:
            self._filled_at = now
        elapsed_s = max(0.0, now - self._filled_at)
        self._filled_at = max(now, self._filled_at)
        self._level = min(self.burst, self._level + elapsed_s * self.rate_per_s)
        return self._level

    def put_back(self, n: float, now: float) -> None:
        """What was taken and not used; below 0: was used and not taken."""
        self._level = min(self.burst, self.level(now) + n)

    def change(self, rate: Rate, now: float) -> None:
        """Another rate from now on; what is there stays, as far as it fits."""
        self._level = min(rate.burst, self.level(now))
        self.rate_per_s, self.burst = rate.per_s, rate.burst


class Buckets:
    """The buckets of one key and kind, which grant only together."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._buckets = tuple(Bucket(rate.per_s, rate.burst) for rate in rates)

    def fit(self, rates: Rates, now: float) -> None:
        """The keys file may have changed."""
        if rates == self._rates:
            return
        if len(rates) == len(self._rates):
            for bucket, rate in zip(self._buckets, rates, strict=True):
                bucket.change(rate, now)
        else:
            self._buckets = tuple(Bucket(rate.per_s, rate.burst) for rate in rates)
        self._rates = rates

    def lease(self, amount: float, at_least: float, returned: float, now: float) -> tuple[float, float]:
        """(granted, 0), or (0, seconds until `at_least` may be granted)."""
        for bucket in self._buckets:
            bucket.put_back(returned, now)
        wait_s = max((bucket.wait_s(at_least, now) for bucket in self._buckets), default=0.0)
        if wait_s > 0:
            return 0.0, wait_s
        there = min((bucket.level(now) for bucket in self._buckets), default=amount)
        granted = max(at_least, min(amount, math.floor(there)))
        for bucket in self._buckets:
            bucket.put_back(-granted, now)
        return granted, 0.0


class QuotaBook:
    """The one place that all gateways share. Bounded: the key that was longest without a request is forgotten first,
    and would begin again with a full bucket."""

    def __init__(self, *, max_keys: int = MAX_KEYS, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_keys = max_keys
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], Buckets] = OrderedDict()
        self._lock = threading.Lock()  # Ray Serve calls a plain method from several threads at once

    def lease(
        self,
        key_id: str,
        kind: str,
        amount: float,
        rates: Rates,
        at_least: float | None = None,
        returned: float = 0.0,
    ) -> tuple[float, float]:
        """(granted, retry_after_s): between `at_least` (or all of `amount`) and `amount`, or 0 and how long to wait.

        returned: what is left of earlier leases and goes back first; below 0 what was used beyond them.
        """
        with self._lock:
            now = self._clock()
            buckets = self._buckets.get((key_id, kind))
            if buckets is None:
                buckets = self._buckets[(key_id, kind)] = Buckets(rates)
                while len(self._buckets) > 2 * self._max_keys:  # two kinds
                    self._buckets.popitem(last=False)
            self._buckets.move_to_end((key_id, kind))
            buckets.fit(rates, now)
            return buckets.lease(amount, amount if at_least is None else at_least, returned, now)
