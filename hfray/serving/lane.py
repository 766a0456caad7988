"""The requests to one model, on their way from a gateway to its replicas. Knows requests, deadlines and refusals; not
HTTP, not protocols, not how a call reaches a replica (`calls.py`).

A call from process to process costs milliseconds, whatever it carries. So a lane keeps a few calls on their way for
each replica, and what arrives meanwhile goes along in the next one: at low load every request travels at once and
alone, at high load many share a call. Generating models, whose requests differ in length, get a call for each.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, cast

from hfray.serving.errors import RequestError
from hfray.serving.messages import Ask, Card, Piece, Reply

CALLS_PER_REPLICA = 2  # one computes while the next is encoded
MAX_TOGETHER = 32
MAX_TRIES = 4
"""Of one request, over replicas that die."""
RATE_MEMORY = 0.9


class LostReplicaError(Exception):
    """The replica that had the call is gone; another one may do it."""


class Calls(Protocol):
    """How a lane reaches the replicas. Both raise LostReplicaError, or RequestError for what the model says."""

    async def predict(self, asks: Sequence[Ask], load: int) -> list[Reply]: ...

    def stream(self, ask: Ask, load: int) -> AsyncIterator[list[Piece]]: ...


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request, or a stream that waits for its turn."""

    ask: Ask | None
    future: asyncio.Future[Any]
    tries: int = 0


class Lane:
    """One model's requests at one gateway. All methods are called in one event loop."""

    def __init__(self, card: Card, calls: Calls) -> None:
        self.card = card
        self.num_replicas = 1
        """That are up, as far as the gateway knows; 0 while the first one starts."""
        self.num_ongoing = 0
        """Requests that are on their way, in calls."""
        self._calls = calls
        self._waiting: deque[_Waiting] = deque()
        self._num_calls = 0
        self._pumping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._rate_per_s = 0.0
        self._answered_at = 0.0
        self._clocks: set[asyncio.Timeout] = set()
        self._closed = False
        self._end: RequestError | None = None

    @property
    def load(self) -> int:
        """Requests that wait or are on their way: what the number of replicas follows."""
        return len(self._waiting) + self.num_ongoing

    async def ask(self, ask: Ask, timeout_s: float) -> Reply:
        """Raises RequestError: 503 where too many wait or the model is taken away, 408 after the time, 500 where
        several replicas died."""
        waiting = self._enter(ask)
        try:
            async with self._clock(time.monotonic() + timeout_s, timeout_s):
                return cast(Reply, await waiting.future)
        finally:
            self._forget(waiting)

    async def stream(self, ask: Ask, timeout_s: float) -> AsyncIterator[list[Piece]]:
        """A text as it comes. Before its first piece a lost replica is replaced by another; after it the stream ends
        with RequestError, as after the time."""
        ends_at = time.monotonic() + timeout_s
        source = self._pieces(ask)
        async with aclosing(cast(Any, source)):
            while True:
                # Around one piece each: the reader of a stream need not be one task from its begin to its end.
                async with self._clock(ends_at, timeout_s):
                    pieces = await anext(source, None)
                if pieces is None:
                    return
                yield pieces

    async def _pieces(self, ask: Ask) -> AsyncIterator[list[Piece]]:
        for number in range(MAX_TRIES):
            begun = False
            try:
                async with self._turn(), aclosing(cast(Any, self._calls.stream(ask, self.load))) as pieces:
                    async for each in pieces:
                        begun = True
                        yield each
                return
            except LostReplicaError:
                if begun or number + 1 == MAX_TRIES:
                    raise _lost() from None

    def close(self) -> None:
        """Takes no more and refuses what waits: the model is being taken away. What its replicas have they finish."""
        self._closed = True
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                waiting.future.set_exception(self._end or _taken_away())

    def end(self, error: RequestError | None = None) -> None:
        """Refuses what is on its way too: the replicas are gone, and Ray Serve would let it wait for others; or the
        gateway goes, and what has begun must not end without a word. error: what its clients are told."""
        self._end = error or _taken_away()
        self.close()
        for clock in self._clocks:
            clock.reschedule(0.0)

    @asynccontextmanager
    async def _clock(self, ends_at: float, timeout_s: float) -> AsyncIterator[None]:
        """Ends what is inside at a time of time.monotonic, or with the lane. timeout_s: what the client is told."""
        try:
            async with asyncio.timeout(ends_at - time.monotonic()) as clock:
                self._clocks.add(clock)
                try:
                    yield
                finally:
                    self._clocks.discard(clock)
        except TimeoutError:
            raise (self._end or _too_late(timeout_s)) from None

    # -- turns

    def _enter(self, ask: Ask | None) -> _Waiting:
        if self._closed:
            raise self._end or _taken_away()
        limit = self.card.limits.max_queued_requests
        if len(self._waiting) >= limit:
            raise RequestError(
                f"model {self.card.name} has {limit} requests waiting already; try again later",
                status=503,
                type="Overloaded",
                retry_after_s=self._retry_after_s(),
            )
        waiting = _Waiting(ask, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake()
        return waiting

    def _forget(self, waiting: _Waiting) -> None:
        """One that nobody waits for is not sent, and takes no place among those that wait."""
        waiting.future.cancel()
        if waiting.future.cancelled():
            with suppress(ValueError):  # it is in a call already
                self._waiting.remove(waiting)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """A place among the calls, for a stream."""
        waiting = self._enter(None)
        try:
            await waiting.future
        except asyncio.CancelledError:
            if waiting.future.done() and not waiting.future.cancelled():  # its turn had come just now
                self._leave(1)
            self._forget(waiting)
            raise
        try:
            yield
        finally:
            self._leave(1)

    def _leave(self, num_requests: int) -> None:
        self._num_calls -= 1
        self.num_ongoing -= num_requests
        self._count(num_requests)
        self._wake()

    def _wake(self) -> None:
        """Sends what waits, once the requests that arrive at this same moment have been queued too."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        while self._waiting and self._num_calls < self._max_calls():
            together = self._next(self._room())
            if not together:
                continue
            self._num_calls += 1
            self.num_ongoing += len(together)
            if together[0].ask is None:
                together[0].future.set_result(None)
                continue
            task = asyncio.get_running_loop().create_task(self._send(together))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _max_calls(self) -> int:
        replicas = max(1, self.num_replicas)
        return replicas * (self.card.limits.max_ongoing_requests if self._alone else CALLS_PER_REPLICA)

    @property
    def _alone(self) -> bool:
        return self.card.streams

    def _room(self) -> int:
        """Requests that one more call may carry: those in the replicas stay within the endpoint's bound."""
        most = max(1, self.num_replicas) * self.card.limits.max_ongoing_requests - self.num_ongoing
        return 1 if self._alone else max(1, min(MAX_TOGETHER, most))

    def _next(self, most: int) -> list[_Waiting]:
        """What goes in one call: a stream alone, a request that was in a call that was lost alone (it may be what its
        replica died of), others together."""
        together: list[_Waiting] = []
        while self._waiting and len(together) < most:
            first = self._waiting[0]
            if first.future.done():
                self._waiting.popleft()
                continue
            single = first.ask is None or first.tries > 0
            if single and together:
                break
            together.append(self._waiting.popleft())
            if single:
                break
        return together

    async def _send(self, together: list[_Waiting]) -> None:
        asks = [each.ask for each in together if each.ask is not None]
        call = asyncio.ensure_future(self._calls.predict(asks, self.load))

        def ended(_: asyncio.Future[Any]) -> None:
            if not call.done() and all(each.future.done() for each in together):  # nobody waits for it any more
                call.cancel()

        for each in together:
            each.future.add_done_callback(ended)
        try:
            replies = await call
            for each, reply in zip(together, replies, strict=True):
                if not each.future.done():
                    each.future.set_result(reply)
        except LostReplicaError:
            for each in reversed(together):
                each.tries += 1
                if each.future.done():
                    continue
                if self._closed:
                    each.future.set_exception(_taken_away())
                elif each.tries >= MAX_TRIES:
                    each.future.set_exception(_lost())
                else:
                    self._waiting.appendleft(each)
        except asyncio.CancelledError:
            for each in together:
                each.future.cancel()
        except Exception as error:
            for each in together:
                if not each.future.done():
                    each.future.set_exception(error)
        finally:
            self._leave(len(together))

    def _count(self, num_requests: int) -> None:
        """Keeps the rate of answers, for `Retry-After`."""
        now = time.monotonic()
        if self._answered_at and now > self._answered_at:
            rate = num_requests / (now - self._answered_at)
            self._rate_per_s = RATE_MEMORY * self._rate_per_s + (1 - RATE_MEMORY) * rate if self._rate_per_s else rate
        self._answered_at = now

    def _retry_after_s(self) -> float:
        """How long the requests that wait now will take, as far as the last answers tell."""
        return min(30.0, max(1.0, len(self._waiting) / self._rate_per_s)) if self._rate_per_s else 1.0


def _too_late(timeout_s: float) -> RequestError:
    return RequestError(f"the answer was not there within {timeout_s:g} s", status=408, type="Timeout")


def _taken_away() -> RequestError:
    return RequestError("the model was taken away", status=503, type="Overloaded", retry_after_s=1)


def _lost() -> RequestError:
    return RequestError("the model's process was lost, several times", status=500, type="LostReplica")
