"""Who waits: a future that is set once, a stream that is read in another thread's loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from hfray.engines.base import Token
from hfray.engines.continuous.receivers import Places, Request, TokenStream, tell
from hfray.errors import EngineError, ItemError


def test_a_future_is_set_with_the_last_item_and_equal_items_are_answered_together() -> None:
    future: Future[Any] = Future()
    request = Request(3, future)
    kept: list[Any] = []
    twice, once = Places(request, [0, 2], kept.append), Places(request, [1], kept.append)
    once.done(ItemError("too long"))
    assert not future.done()
    twice.token(Token(7))
    twice.done({"finish": "stop"})
    first, second, third = future.result(timeout=0)
    assert first == third == {"finish": "stop"}
    assert isinstance(second, ItemError)
    assert kept == [{"finish": "stop"}]  # no failure is kept for equal items
    assert once.cancelled


def test_an_engine_that_ends_fails_what_waits_and_only_once() -> None:
    future: Future[Any] = Future()
    request = Request(2, future)
    one, other = Places(request, [0]), Places(request, [1])
    one.done({"finish": "stop"})
    other.fail(EngineError("the device is lost"))
    one.fail(EngineError("again"))
    other.done({"finish": "stop"})
    with pytest.raises(EngineError, match="the device is lost"):
        future.result(timeout=0)


def test_a_cancelled_future_is_left_alone() -> None:
    future: Future[Any] = Future()
    place = Places(Request(1, future), [0])
    assert future.cancel()
    assert place.cancelled
    place.done({"finish": "stop"})
    place.fail(EngineError("late"))
    assert future.cancelled()


def streamed(act: Any) -> tuple[list[Token], BaseException | None, TokenStream]:
    """What a reader gets while `act(stream)` runs in another thread."""

    async def read() -> tuple[list[Token], BaseException | None, TokenStream]:
        stream = TokenStream(asyncio.get_running_loop())
        thread = threading.Thread(target=lambda: (act(stream), tell([stream])))
        thread.start()
        found: list[Token] = []
        problem: BaseException | None = None
        try:
            async for token in stream.read():
                found.append(token)
        except (ItemError, EngineError) as error:
            problem = error
        thread.join()
        return found, problem, stream

    return asyncio.run(asyncio.wait_for(read(), 10))


def test_a_stream_ends_with_its_last_token() -> None:
    def act(stream: TokenStream) -> None:
        for token in (Token(3), Token(4), Token(5, "stop")):
            stream.token(token)
        stream.done({"finish": "stop"})

    found, problem, stream = streamed(act)
    assert [each.id for each in found] == [3, 4, 5]
    assert problem is None
    assert stream.cancelled


@pytest.mark.parametrize("error", [ItemError("too long"), EngineError("the device is lost")])
def test_a_stream_that_fails_says_so_after_what_it_has_given(error: Exception) -> None:
    def act(stream: TokenStream) -> None:
        stream.token(Token(3))
        if isinstance(error, ItemError):
            stream.done(error)
        else:
            stream.fail(error)  # type: ignore[arg-type]

    found, problem, _ = streamed(act)
    assert [each.id for each in found] == [3]
    assert problem is error


def test_a_reader_that_leaves_cancels() -> None:
    async def leave() -> TokenStream:
        stream = TokenStream(asyncio.get_running_loop())
        stream.token(Token(3))
        tell([stream])
        reading = stream.read()
        assert (await anext(reading)).id == 3
        assert not stream.cancelled
        await reading.aclose()
        return stream

    stream = asyncio.run(leave())
    assert stream.cancelled
    stream.token(Token(4))
    tell([stream])  # its loop is closed: nobody reads


def test_a_loop_that_is_gone_cancels() -> None:
    loop = asyncio.new_event_loop()
    stream = TokenStream(loop)
    loop.close()
    assert not stream.cancelled
    stream.token(Token(3))
    tell([stream])
    assert stream.cancelled


def test_a_loop_is_called_once_for_all_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read() -> list[list[int]]:
        loop = asyncio.get_running_loop()
        calls = []
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *call: calls.append(call))
        streams = [TokenStream(loop) for _ in range(3)]
        for number, stream in enumerate(streams):
            stream.token(Token(number))
            stream.token(Token(number + 10, "stop"))
        tell([*streams, Places(Request(1, Future()), [0])])
        ((act, *arguments),) = calls
        act(*arguments)
        return [[token.id async for token in stream.read()] for stream in streams]

    assert asyncio.run(read()) == [[0, 10], [1, 11], [2, 12]]
