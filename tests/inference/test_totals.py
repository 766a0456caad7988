"""The sum of receipts: exact, and bounded in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfray.inference.totals import MAX_POINTS, MAX_TOTAL_LABELS, Throughput, Totals
from tests.inference.test_receipt import RECEIPT


def test_totals_are_exact() -> None:
    totals = Totals()
    totals.add(RECEIPT)
    totals.add(replace(RECEIPT, shard=8, worker="w-2", started_at=1001.0, ended_at=1004.25, labels={"x": 5}))
    totals.add(replace(RECEIPT, shard=9, adopted=True, worker="old", error_types={"EmptyText": 3}))
    assert (totals.shards, totals.adopted_shards) == (3, 1)
    assert (totals.rows, totals.adopted_rows, totals.computed_rows, totals.failed) == (300, 100, 200, 9)
    assert (totals.tokens, totals.computed_tokens, totals.padded_tokens) == (2700, 1800, 3000)
    assert (totals.generated_tokens, totals.truncated, totals.size_bytes) == (150, 6, 3 * 4321)
    assert totals.busy_s == 3.0
    assert totals.computed_failed == 6
    assert totals.workers == {"w-1", "w-2"}
    assert totals.lengths == [3 * count for count in RECEIPT.lengths]
    assert totals.scores == [3 * count for count in RECEIPT.scores]
    assert totals.labels == {'café\n"': 180, "": 14, "x": 5}
    assert totals.error_types == {"NullText": 6, "EmptyText": 3}
    assert totals.throughput.span_s == 4.0


def test_totals_keep_to_their_memory() -> None:
    totals = Totals()
    for shard in range(2000):
        labels = {f"{shard}-{index}": 1 for index in range(20)} | {"common": 30}
        at = 1000.0 + shard * 7
        totals.add(replace(RECEIPT, shard=shard, labels=labels, started_at=at, ended_at=at + 7))
    assert len(totals.labels) <= 2 * MAX_TOTAL_LABELS + 50
    assert sum(totals.labels.values()) == 2000 * 50
    assert totals.labels["common"] == 60_000
    assert len(totals.throughput.points()) <= MAX_POINTS
    assert totals.throughput.span_s == 14_000


def test_throughput_spreads_a_shard_over_its_time() -> None:
    series = Throughput()
    series.add(100.0, 104.0, 40, 400)
    assert series.points() == tuple((index + 0.5, 10.0, 100.0) for index in range(4))
    series.add(102.0, 104.5, 50, 0)
    assert [round(rows) for _, rows, _ in series.points()] == [10, 10, 30, 30, 20]
    assert series.points()[-1][0] == 4.25


def test_throughput_takes_an_earlier_start_and_no_time_at_all() -> None:
    series = Throughput()
    series.add(10.0, 10.0, 5, 5)
    assert series.points() == ((0.5, 5.0, 5.0),)
    series.add(7.5, 8.0, 2, 2)
    assert series.span_s == 2.5
    assert sum(series._rows) == 7
    assert Throughput().points() == ()
    assert Throughput().span_s == 0.0


@given(
    st.lists(
        st.tuples(st.floats(0, 2e9), st.floats(-5, 5e6), st.integers(0, 10_000)),
        min_size=1,
        max_size=40,
    )
)
def test_throughput_loses_nothing_and_stays_bounded(shards: list[tuple[float, float, int]]) -> None:
    series = Throughput()
    for started_at, took_s, rows in shards:
        series.add(started_at, started_at + took_s, rows, 2 * rows)
        assert len(series._rows) <= MAX_POINTS + 1
    total = sum(rows for _, _, rows in shards)
    assert sum(series._rows) == pytest.approx(total, rel=1e-6)
    assert sum(series._tokens) == pytest.approx(2 * total, rel=1e-6)
    times = [at_s for at_s, _, _ in series.points()]
    assert times == sorted(times)
