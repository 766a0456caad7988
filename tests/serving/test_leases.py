"""Gateways that lease from a shared book: together never more than rate * t + burst, mostly without asking."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfray.serving import leases as leases_module
from hfray.serving.leases import Leases
from hfray.serving.quota import QuotaBook, Rates, rates_of
from tests.serving.limits import SLACK, Clock, key


class Office:
    """The book behind an async call that can be slow or broken, and counts."""

    def __init__(self, book: QuotaBook) -> None:
        self.book = book
        self.num_calls = 0
        self.broken = False

    async def lease(
        self, key_id: str, kind: str, amount: float, rates: Rates, at_least: float, returned: float
    ) -> tuple[float, float]:
        self.num_calls += 1
        await asyncio.sleep(0)
        if self.broken:
            raise ConnectionError("the book is away")
        return self.book.lease(key_id, kind, amount, rates, at_least, returned)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),  # which gateway
        st.sampled_from([0.0, 0.0, 0.001, 0.1, 0.6, 3.0, 20.0]),
        st.integers(1, 30),  # tokens
        st.integers(1, 6),  # as many requests at the same time
        st.integers(0, 30),  # tokens that were not used
        st.booleans(),  # whether idle leases go back now
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(1, 6000), st.integers(30, 6000), st.none() | st.integers(30, 20_000))
def test_many_gateways_grant_no_more_than_the_rates(
    steps: list[tuple[int, float, int, int, int, bool]], requests: int, tokens: int, day: int | None
) -> None:
    limited = key(requests_per_minute=requests, tokens_per_minute=tokens, **({"tokens_per_day": day} if day else {}))

    async def play() -> None:
        clock = Clock()
        begun = clock.now
        office = Office(QuotaBook(clock=clock))
        gateways = [Leases(office.lease, clock=clock) for _ in range(4)]
        used = {"requests": 0, "tokens": 0}
        for index, after_s, n, at_once, unused, returns in steps:
            clock.now += after_s
            gateway = gateways[index]
            waits = await asyncio.gather(*(gateway.allow(limited, 1, n) for _ in range(at_once)))
            assert all(wait is None or wait > 0 for wait in waits)
            num_granted = waits.count(None)
            used["requests"] += num_granted
            used["tokens"] += num_granted * n
            for kind, rates in ((kind, rates_of(limited, kind)) for kind in used):  # type: ignore[arg-type, union-attr]
                for rate in rates:
                    assert used[kind] <= rate.per_s * (clock.now - begun) + rate.burst + SLACK
            for _ in range(num_granted):
                back = min(unused, n)
                gateway.settle(limited, -back)
                used["tokens"] -= back
            if returns:
                await gateway.return_idle()
        for gateway in gateways:
            await gateway.close()
        # All is back: one bucket of its own would be as full.
        clock.now += 86_400
        assert office.book.lease("alice", "requests", requests, rates_of(limited, "requests")) == (requests, 0)

    asyncio.run(play())


def run(play: Any) -> None:
    async def with_office() -> None:
        clock = Clock()
        office = Office(QuotaBook(clock=clock))
        leases = Leases(office.lease, clock=clock)
        try:
            await play(leases, office, clock)
        finally:
            await leases.close()

    asyncio.run(with_office())


def test_most_requests_ask_nobody() -> None:
    async def play(leases: Leases, office: Office, clock: Clock) -> None:
        fast = key(requests_per_minute=6000)
        assert await asyncio.gather(*(leases.allow(fast) for _ in range(500))) == [None] * 500
        assert office.num_calls == 10  # 50 requests are half a second's worth
        free = key()
        assert await leases.allow(free, 1, 10**9) is None
        leases.settle(free, 10**9)
        assert office.num_calls == 10

    run(play)


def test_refusals_say_when_and_do_not_keep_the_book_busy() -> None:
    async def play(leases: Leases, office: Office, clock: Clock) -> None:
        slow = key(requests_per_minute=60)
        waits = await asyncio.gather(*(leases.allow(slow) for _ in range(1000)))
        assert waits.count(None) == 60
        assert office.num_calls == 61
        assert all(0 < wait <= 1 for wait in waits if wait is not None)
        clock.now += 1
        assert await leases.allow(slow) is None
        assert await leases.allow(slow) == pytest.approx(1)

    run(play)


def test_more_than_the_limit_holds_is_never_granted() -> None:
    async def play(leases: Leases, office: Office, clock: Clock) -> None:
        small = key(tokens_per_minute=100, requests_per_minute=1)
        assert await leases.allow(small, 1, 101) == math.inf
        assert await leases.allow(small, 1, 100) is None  # the refused one took no request
        assert await leases.allow(small, 1, 0) == pytest.approx(60)

    run(play)


def test_use_beyond_the_estimate_is_paid_later_at_any_gateway() -> None:
    async def play(leases: Leases, office: Office, clock: Clock) -> None:
        limited = key(tokens_per_minute=60)
        assert await leases.allow(limited, 1, 60) is None
        leases.settle(limited, 30)
        clock.now += 2
        await leases.return_idle()
        other = Leases(office.lease, clock=clock)
        assert await other.allow(limited, 1, 1) == pytest.approx(29)
        await other.close()

    run(play)


def test_idle_leases_go_back_and_keys_that_stay_away_are_forgotten() -> None:
    async def play(leases: Leases, office: Office, clock: Clock) -> None:
        fast = key(requests_per_minute=6000)
        rates = rates_of(fast, "requests")
        assert await leases.allow(fast) is None
        assert office.book.lease("alice", "requests", 5950, rates) == (5950, 0)
        assert office.book.lease("alice", "requests", 1, rates)[0] == 0
        clock.now += 1.99
        await leases.return_idle()
        assert office.num_calls == 1
        clock.now += 0.01
        await leases.return_idle()
        assert office.num_calls == 2
        assert office.book.lease("alice", "requests", 249, rates) == (249, 0)  # 49 came back, 200 flowed in
        assert office.book.lease("alice", "requests", 1, rates)[0] == 0
        clock.now += 60
        await leases.return_idle()
        assert not leases._holdings

    run(play)


def test_leases_go_back_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "_SWEEP_EVERY_S", 0.001)

    async def play(leases: Leases, office: Office, clock: Clock) -> None:
        assert await leases.allow(key(requests_per_minute=6000)) is None
        clock.now += 3
        async with asyncio.timeout(5):
            while office.num_calls < 2:
                await asyncio.sleep(0.001)

    run(play)


def test_without_the_book_each_gateway_counts_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def play(leases: Leases, office: Office, clock: Clock) -> None:
        office.broken = True
        slow = key(requests_per_minute=60)
        waits = [await leases.allow(slow) for _ in range(100)]
        assert waits.count(None) == 60
        assert office.num_calls == 1
        clock.now += 6
        assert await leases.allow(slow) is None
        assert office.num_calls == 2
        assert caplog.text.count("does not answer") == 1
        office.broken = False
        clock.now += 6
        assert await leases.allow(slow) is None
        assert office.num_calls == 3
        assert caplog.text.count("answers again") == 1

    caplog.set_level(logging.INFO)
    run(play)


def test_a_book_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "ASK_TIMEOUT_S", 0.05)

    async def play() -> None:
        async def never(*_: Any) -> tuple[float, float]:
            await asyncio.sleep(3600)
            raise RuntimeError

        leases = Leases(never)
        async with asyncio.timeout(2):
            assert await asyncio.gather(*(leases.allow(key(requests_per_minute=60)) for _ in range(50))) == [None] * 50
        await leases.close()

    asyncio.run(play())
