"""Buckets and the shared book: never more than rate * t + burst."""

from __future__ import annotations

import math
import sys
import threading

from hypothesis import given
from hypothesis import strategies as st

from hfray.serving.quota import Bucket, QuotaBook, Rate, rates_of
from tests.serving.limits import SLACK, Clock, key

TIMES = st.floats(0, 30, allow_nan=False)
AMOUNTS = st.integers(1, 40)


@given(st.floats(0.01, 100), st.floats(1, 100), st.lists(st.tuples(TIMES, AMOUNTS), max_size=60))
def test_a_bucket_grants_no_more_than_its_rate(rate_per_s: float, burst: float, asks: list[tuple[float, int]]) -> None:
    bucket, now, granted = Bucket(rate_per_s, burst), 0.0, 0.0
    for after_s, n in asks:
        now += after_s
        wait_s = bucket.take(n, now)
        assert wait_s >= 0
        granted += n if wait_s == 0 else 0
        assert granted <= rate_per_s * now + burst + SLACK
        assert math.isinf(wait_s) == (n > burst and wait_s > 0)


@given(st.floats(0.01, 100), st.integers(1, 100), st.lists(st.tuples(TIMES, AMOUNTS), max_size=20))
def test_who_waits_as_long_as_told_is_granted(rate_per_s: float, burst: int, asks: list[tuple[float, int]]) -> None:
    bucket, now = Bucket(rate_per_s, burst), 0.0
    for after_s, n in asks:
        now += after_s
        wait_s = bucket.take(n, now)
        if 0 < wait_s < math.inf:
            now += wait_s
            assert bucket.take(n, now) == 0


def test_a_clock_that_steps_back_fills_nothing() -> None:
    bucket = Bucket(1, 10)
    assert bucket.take(10, 100) == 0
    assert bucket.take(1, 50) == 1
    assert bucket.take(1, 100) == 1
    assert bucket.take(1, 101) == 0


def test_rates_of_a_key() -> None:
    assert rates_of(key(), "requests") == rates_of(key(requests_per_minute=5), "tokens") == ()
    assert rates_of(key(requests_per_minute=120), "requests") == (Rate(2, 120),)
    limited = key(tokens_per_minute=60, tokens_per_day=86_400)
    assert rates_of(limited, "tokens") == (Rate(1, 60), Rate(1, 86_400))


def test_the_book_grants_at_least_or_nothing_and_all_rates_at_once() -> None:
    clock = Clock()
    book = QuotaBook(clock=clock)
    rates = (Rate(10, 100), Rate(1, 150))
    assert book.lease("a", "tokens", 60, rates) == (60, 0)
    assert book.lease("a", "tokens", 60, rates, at_least=20) == (40, 0)
    assert book.lease("a", "tokens", 60, rates, at_least=20) == (0, 2)
    clock.now += 9
    assert book.lease("a", "tokens", 90, rates, at_least=60) == (0, 1)  # 90 and 59: the day's bucket holds it up
    assert book.lease("a", "tokens", 101, rates) == (0, math.inf)
    assert book.lease("b", "tokens", 100, rates) == (100, 0)
    assert book.lease("a", "requests", 3, (Rate(1, 3),)) == (3, 0)


def test_what_comes_back_is_there_again_up_to_the_burst() -> None:
    book = QuotaBook(clock=Clock())
    rates = (Rate(1, 10),)
    assert book.lease("a", "tokens", 8, rates) == (8, 0)
    assert book.lease("a", "tokens", 5, rates, returned=3) == (5, 0)
    assert book.lease("a", "tokens", 1, rates, returned=-20) == (0, 21)
    assert book.lease("a", "tokens", 10, rates, returned=1000) == (10, 0)
    assert book.lease("a", "tokens", 1, rates) == (0, 1)


def test_other_limits_count_from_now_on() -> None:
    clock = Clock()
    book = QuotaBook(clock=clock)
    assert book.lease("a", "requests", 10, (Rate(1, 10),)) == (10, 0)
    assert book.lease("a", "requests", 1, (Rate(2, 20),)) == (0, 0.5)
    clock.now += 100
    assert book.lease("a", "requests", 20, (Rate(2, 20),)) == (20, 0)
    assert book.lease("a", "requests", 1, (Rate(2, 20), Rate(1, 5))) == (1, 0)


def test_the_book_is_bounded() -> None:
    book = QuotaBook(max_keys=50, clock=Clock())
    for number in range(10_000):
        book.lease("used", "requests", 0, (Rate(1, 10),))
        book.lease(f"k{number}", "requests", 1, (Rate(1, 10),))
    assert len(book._buckets) == 100
    book.lease("used", "requests", 10, (Rate(1, 10),))
    assert book.lease("used", "requests", 1, (Rate(1, 10),))[0] == 0


def test_several_threads_together_are_granted_no_more() -> None:
    """As Ray Serve calls the book."""
    book, rates = QuotaBook(clock=Clock()), (Rate(1.0, 1000.0),)
    granted: list[float] = []

    def ask() -> None:
        granted.append(sum(book.lease("one", "requests", 1, rates)[0] for _ in range(2000)))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sum(granted) == 1000
