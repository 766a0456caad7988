"""Requests on their way: what shares a call, what is refused, what is tried again. The calls here are a double of Ray's
handles; tests/promises has the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from hfray.serving.errors import RequestError
from hfray.serving.lane import MAX_TOGETHER, MAX_TRIES, Lane, LostReplicaError
from hfray.serving.messages import Ask, Card, Piece, Reply
from hfray.spec.endpoint import LimitsSpec


class Double:
    """Answers when it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.loads: list[int] = []
        self.gate = asyncio.Event()
        self.fail: list[Exception] = []
        self.cancelled = 0

    async def predict(self, asks: Sequence[Ask], load: int) -> list[Reply]:
        self.calls.append([ask.request_id for ask in asks])
        self.loads.append(load)
        if self.fail:
            raise self.fail.pop(0)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return [Reply((ask.request_id,)) for ask in asks]

    async def stream(self, ask: Ask, load: int) -> AsyncIterator[list[Piece]]:
        self.calls.append([ask.request_id])
        if self.fail and not isinstance(self.fail[0], _Late):
            raise self.fail.pop(0)
        yield [Piece(0, text="one")]
        if self.fail:
            raise self.fail.pop(0)
        await self.gate.wait()
        yield [Piece(0, text="two", finish="stop")]


class _Late(LostReplicaError):
    """Comes after the first piece."""


def run(body: Callable[[Lane, Double], Awaitable[Any]], *, streams: bool = False, **limits: Any) -> Any:
    async def inner() -> Any:
        double = Double()
        bounds = LimitsSpec(**{"max_queued_requests": 100, **limits})
        card = Card("m", "text-classification", {}, streams=streams, limits=bounds)
        return await asyncio.wait_for(body(Lane(card, double), double), 20)

    return asyncio.run(inner())


def ask(name: str) -> Ask:
    return Ask(({"text": name},), request_id=name)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_who_went_away_takes_no_place_among_those_that_wait() -> None:
    async def body(lane: Lane, double: Double) -> list[Reply]:
        sent = []
        for number in range(2):
            sent.append(asyncio.ensure_future(lane.ask(ask(f"s{number}"), 20)))
            await settle()
        for number in range(5):
            gone = asyncio.ensure_future(lane.ask(ask(f"gone{number}"), 20))
            await settle()
            gone.cancel()
            await settle()
        assert lane.load == 2
        stays = asyncio.ensure_future(lane.ask(ask("stays"), 20))
        await settle()
        double.gate.set()
        return await asyncio.gather(*sent, stays)

    replies = run(body, max_queued_requests=1)
    assert [reply.results for reply in replies] == [("s0",), ("s1",), ("stays",)]


def test_a_request_travels_at_once_and_alone() -> None:
    async def body(lane: Lane, double: Double) -> Reply:
        double.gate.set()
        return await lane.ask(ask("a"), 5)

    assert run(body).results == ("a",)


def test_what_arrives_while_calls_are_on_their_way_shares_the_next() -> None:
    async def body(lane: Lane, double: Double) -> None:
        first = [asyncio.ensure_future(lane.ask(ask(name), 5)) for name in "ab"]
        await settle()
        assert double.calls == [["a", "b"]], "those of one moment travel together"
        second = asyncio.ensure_future(lane.ask(ask("c"), 5))
        await settle()
        rest = [asyncio.ensure_future(lane.ask(ask(str(number)), 5)) for number in range(MAX_TOGETHER + 3)]
        await settle()
        assert double.calls == [["a", "b"], ["c"]], "two calls for one replica"
        assert lane.load == 3 + MAX_TOGETHER + 3
        double.gate.set()
        replies = await asyncio.gather(*first, second, *rest)
        assert [reply.results[0] for reply in replies] == ["a", "b", "c", *map(str, range(MAX_TOGETHER + 3))]
        assert [len(call) for call in double.calls] == [2, 1, MAX_TOGETHER, 3]
        assert double.loads[-1] > 3, "calls tell the replica what its gateway has"
        assert lane.load == 0

    run(body)


def test_more_replicas_have_more_calls() -> None:
    async def body(lane: Lane, double: Double) -> int:
        lane.num_replicas = 3
        tasks = []
        for number in range(20):
            tasks.append(asyncio.ensure_future(lane.ask(ask(str(number)), 5)))
            await settle()
        calls = len(double.calls)
        double.gate.set()
        await asyncio.gather(*tasks)
        return calls

    assert run(body) == 6


def test_a_generating_model_has_a_call_for_each_request() -> None:
    async def body(lane: Lane, double: Double) -> list[list[str]]:
        tasks = [asyncio.ensure_future(lane.ask(ask(name), 5)) for name in "abcde"]
        await settle()
        before = list(double.calls)
        double.gate.set()
        await asyncio.gather(*tasks)
        return before

    assert run(body, streams=True, max_ongoing_requests=3) == [["a"], ["b"], ["c"]]


def test_more_than_may_wait_is_refused_at_once_and_told_when_to_come_back() -> None:
    async def body(lane: Lane, double: Double) -> None:
        first = [asyncio.ensure_future(lane.ask(ask("a"), 5))]
        await settle()
        first.append(asyncio.ensure_future(lane.ask(ask("b"), 5)))
        await settle()
        waiting = [asyncio.ensure_future(lane.ask(ask(str(number)), 5)) for number in range(8)]
        await settle()
        refused = [task for task in waiting if task.done()]
        assert len(refused) == 5, "two are on their way, three wait"
        for task in refused:
            error = task.exception()
            assert isinstance(error, RequestError)
            assert (error.status, error.type) == (503, "Overloaded")
            assert error.retry_after_s is not None
            assert error.retry_after_s >= 1
        double.gate.set()
        await asyncio.gather(*first, *(task for task in waiting if task not in refused))

    run(body, max_queued_requests=3)


def test_after_its_time_a_request_ends_and_a_call_of_its_own_is_cancelled() -> None:
    async def body(lane: Lane, double: Double) -> None:
        with pytest.raises(RequestError, match=r"within 0\.05 s") as caught:
            await lane.ask(ask("a"), 0.05)
        assert caught.value.status == 408
        await settle()
        assert double.cancelled == 1
        assert lane.load == 0

    run(body)


def test_one_that_gave_up_while_it_waited_is_not_sent() -> None:
    async def body(lane: Lane, double: Double) -> None:
        on_their_way = []
        for name in "ab":
            on_their_way.append(asyncio.ensure_future(lane.ask(ask(name), 5)))
            await settle()
        gone, stays = (asyncio.ensure_future(lane.ask(ask(name), 5)) for name in "cd")
        await settle()
        gone.cancel()
        await settle()
        double.gate.set()
        await asyncio.gather(*on_their_way, stays)
        assert double.calls == [["a"], ["b"], ["d"]]

    run(body)


def test_requests_of_a_lost_replica_are_tried_again_one_by_one() -> None:
    async def body(lane: Lane, double: Double) -> None:
        double.fail = [LostReplicaError("ActorDiedError")]
        double.gate.set()
        replies = await asyncio.gather(*(lane.ask(ask(name), 5) for name in "abc"))
        assert [reply.results[0] for reply in replies] == ["a", "b", "c"]
        assert double.calls == [["a", "b", "c"], ["a"], ["b"], ["c"]]

    run(body)


def test_a_request_that_every_replica_dies_of_ends() -> None:
    async def body(lane: Lane, double: Double) -> None:
        double.fail = [LostReplicaError("ActorDiedError")] * 10
        with pytest.raises(RequestError) as caught:
            await lane.ask(ask("a"), 5)
        assert (caught.value.status, caught.value.type) == (500, "LostReplica")
        assert len(double.calls) == MAX_TRIES

    run(body)


def test_what_a_call_says_reaches_its_requests() -> None:
    async def body(lane: Lane, double: Double) -> None:
        double.fail = [RequestError("no", status=503)]
        with pytest.raises(RequestError, match="no"):
            await lane.ask(ask("a"), 5)
        double.gate.set()
        assert (await lane.ask(ask("b"), 5)).results == ("b",)

    run(body)


def test_a_stream_goes_to_another_replica_before_its_first_piece_only() -> None:
    async def body(lane: Lane, double: Double) -> None:
        double.gate.set()
        double.fail = [LostReplicaError("ActorDiedError")]
        pieces = [piece.text async for each in lane.stream(ask("a"), 5) for piece in each]
        assert pieces == ["one", "two"]
        assert double.calls == [["a"], ["a"]]
        double.fail = [_Late("ActorDiedError")]
        stream = lane.stream(ask("b"), 5)
        assert [piece.text for piece in await anext(stream)] == ["one"]
        with pytest.raises(RequestError) as caught:
            await anext(stream)
        assert caught.value.status == 500
        assert lane.load == 0

    run(body, streams=True)


def test_a_stream_has_its_time_too_and_gives_its_turn_back() -> None:
    async def body(lane: Lane, double: Double) -> None:
        for _ in range(3):
            stream = lane.stream(ask("a"), 0.02)
            await anext(stream)
            with pytest.raises(RequestError) as caught:
                await anext(stream)
            assert caught.value.status == 408
        await settle()
        assert lane.load == 0
        double.gate.set()
        assert [piece.text async for each in lane.stream(ask("b"), 5) for piece in each] == ["one", "two"]

    run(body, streams=True, max_ongoing_requests=1)


def test_what_waits_for_a_model_that_is_taken_away_is_refused() -> None:
    async def body(lane: Lane, double: Double) -> None:
        tasks = []
        for name in "abc":
            tasks.append(asyncio.ensure_future(lane.ask(ask(name), 5)))
            await settle()
        lane.close()
        double.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in answers] == [Reply, Reply, RequestError]

    run(body)


def test_what_its_replicas_lost_or_never_had_is_refused_as_soon_as_they_are_gone() -> None:
    async def body(lane: Lane, double: Double) -> None:
        tasks = []
        for name in "abc":  # a travels alone, b and c are together in one call
            tasks.append(asyncio.ensure_future(lane.ask(ask(name), 60)))
            if name != "b":
                await settle()
        assert double.calls == [["a"], ["b", "c"]]
        lane.end()
        answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        refusals = [each for each in answers if isinstance(each, RequestError)]
        assert [(each.status, each.retry_after_s) for each in refusals] == [(503, 1)] * 3
        await settle()
        assert (double.cancelled, lane.load) == (2, 0)
        with pytest.raises(RequestError, match="taken away"):
            await lane.ask(ask("d"), 5)

    run(body)


def test_a_stream_ends_with_its_lane() -> None:
    async def body(lane: Lane, double: Double) -> None:
        stream = lane.stream(ask("a"), 60)
        await anext(stream)
        task = asyncio.ensure_future(anext(stream))  # type: ignore[arg-type]
        await settle()
        lane.end()
        with pytest.raises(RequestError, match="taken away"):
            await asyncio.wait_for(task, 5)

    run(body, streams=True)


def test_a_request_whose_replica_leaves_with_its_model_is_not_tried_for_ever() -> None:
    async def body(lane: Lane, double: Double) -> None:
        double.fail = [LostReplicaError("ActorDiedError")]
        task = asyncio.ensure_future(lane.ask(ask("a"), 60))
        await asyncio.sleep(0)
        lane.close()
        with pytest.raises(RequestError, match="taken away"):
            await asyncio.wait_for(task, 5)

    run(body)


def test_requests_in_the_replicas_stay_within_the_endpoints_bound() -> None:
    async def body(lane: Lane, double: Double) -> list[int]:
        tasks = [asyncio.ensure_future(lane.ask(ask(str(number)), 5)) for number in range(20)]
        await settle()
        assert lane.num_ongoing <= 10
        double.gate.set()
        await asyncio.gather(*tasks)
        return [len(call) for call in double.calls]

    assert max(run(body, max_ongoing_requests=5)) == 5
