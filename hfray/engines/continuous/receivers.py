"""Who waits for sequences: a caller with a future for many, or a stream of one's tokens. Knows futures and event loops;
not models, not scheduling."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Future

from hfray.engines.base import Outputs, Token
from hfray.engines.continuous.sequence import Receiver
from hfray.errors import EngineError, ItemError
from hfray.types import Output


class Request:
    """The items of one caller: the future is set when the last of them is done."""

    def __init__(self, num_items: int, future: Future[Outputs]) -> None:
        self.future = future
        self._outputs: list[Output | ItemError | None] = [None] * num_items
        self._left = num_items
        self._settled = False
        self._lock = threading.Lock()  # items that need no model are answered by the caller's thread

    @property
    def cancelled(self) -> bool:
        return self.future.done()

    def answer(self, places: list[int], output: Output | ItemError) -> None:
        with self._lock:
            for place in places:
                self._outputs[place] = output
            self._left -= len(places)
            if self._left == 0 and self._open():
                self.future.set_result([each for each in self._outputs if each is not None])

    def fail(self, error: EngineError) -> None:
        with self._lock:
            if self._open():
                self.future.set_exception(error)

    def _open(self) -> bool:
        """Whether the future can be set, which is asked once. One that its caller cancelled cannot, but whoever waits
        for it is told."""
        if self._settled:
            return False
        self._settled = True
        return self.future.set_running_or_notify_cancel()


class Places:
    """Receives one sequence of a request, for all places that wait for an equal item."""

    def __init__(self, request: Request, places: list[int], keep: Callable[[Output], None] | None = None) -> None:
        self._request = request
        self._places = places
        self._keep = keep

    @property
    def cancelled(self) -> bool:
        return self._request.cancelled

    def token(self, token: Token) -> None:
        pass

    def done(self, output: Output | ItemError) -> None:
        if self._keep is not None and not isinstance(output, ItemError):
            self._keep(output)
        self._request.answer(self._places, output)

    def fail(self, error: EngineError) -> None:
        self._request.fail(error)


class TokenStream:
    """Receives one sequence, for an asynchronous reader in another thread's event loop. Its reader is told of tokens by
    `tell`, of an error at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.cancelled = False
        self.loop = loop
        self._fresh: deque[Token | ItemError | EngineError] = deque()
        self._queue: asyncio.Queue[Token | ItemError | EngineError] = asyncio.Queue()

    def token(self, token: Token) -> None:
        self._fresh.append(token)

    def done(self, output: Output | ItemError) -> None:
        if isinstance(output, ItemError):
            self._end(output)

    def fail(self, error: EngineError) -> None:
        self._end(error)

    async def read(self) -> AsyncGenerator[Token, None]:
        """Raises ItemError or EngineError; leaving early cancels the sequence."""
        try:
            while True:
                found = await self._queue.get()
                if isinstance(found, Exception):
                    raise found
                yield found
                if found.finish is not None:
                    return
        finally:
            self.cancelled = True

    def pass_on(self) -> None:
        """To the reader what has come; in its event loop."""
        while self._fresh:
            self._queue.put_nowait(self._fresh.popleft())

    def _end(self, error: ItemError | EngineError) -> None:
        self._fresh.append(error)
        tell([self])


def tell(receivers: Iterable[Receiver]) -> None:
    """Tells the readers of streams what has come: one call for each event loop, however many its streams are, because
    each wakes the loop's thread, which then takes the interpreter from the engine's."""
    streams: dict[asyncio.AbstractEventLoop, list[TokenStream]] = {}
    for each in receivers:
        if isinstance(each, TokenStream):
            streams.setdefault(each.loop, []).append(each)
    for loop, some in streams.items():
        try:
            loop.call_soon_threadsafe(_pass_on, some)
        except RuntimeError:  # the loop is gone, and nobody reads
            for each in some:
                each.cancelled = True


def _pass_on(streams: Iterable[TokenStream]) -> None:
    for each in streams:
        each.pass_on()
