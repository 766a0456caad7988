from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfray.errors import DataError
from hfray.inference.receipt import (
    LENGTH_BINS,
    MAX_LABELS,
    NUM_SCORE_BINS,
    Receipt,
    count_labels,
    count_lengths,
    count_scores,
    most_frequent,
)
from hfray.inference.totals import MAX_POINTS, MAX_TOTAL_LABELS, Throughput, Totals

RECEIPT = Receipt(
    shard=7,
    rows=100,
    failed=3,
    size_bytes=4321,
    sha256="ab" * 32,
    tokens=900,
    padded_tokens=1000,
    generated_tokens=50,
    busy_s=1.5,
    started_at=1000.25,
    ended_at=1002.75,
    worker="w-1",
    truncated=2,
    lengths=count_lengths([3, 9, 70_000]),
    labels={'café\n"': 90, "": 7},
    scores=count_scores([0.1, 1.0]),
    error_types={"NullText": 3},
)


def test_round_trip_on_one_line() -> None:
    text = RECEIPT.to_json()
    assert "\n" not in text
    assert ": " not in text
    assert Receipt.from_json(text) == RECEIPT
    bare = Receipt(shard=0, rows=1, failed=0, size_bytes=1, sha256="", adopted=True)
    assert Receipt.from_json(bare.to_json().encode()) == bare


def test_keys_of_a_later_version_are_ignored() -> None:
    assert Receipt.from_json(RECEIPT.to_json().replace("{", '{"new":1,', 1)) == RECEIPT


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"shard":1}', RECEIPT.to_json()[:-20], '{"shard":"x"}'])
def test_anything_else_is_a_data_error(text: str) -> None:
    with pytest.raises(DataError, match="not a receipt"):
        Receipt.from_json(text)


def test_length_bins_include_their_upper_edge() -> None:
    counts = count_lengths([1, 8, 9, 16, 32768, 32769, 10**9])
    assert len(counts) == len(LENGTH_BINS) + 1
    assert counts[:2] == (2, 2)
    assert counts[-2:] == (1, 2)
    assert sum(count_lengths(range(1, 40_000))) == 39_999
    assert sum(count_lengths([])) == 0


def test_score_bins() -> None:
    counts = count_scores([0.0, 0.05, 0.15, 0.999, 1.0, 1.5, -0.5, float("nan")])
    assert len(counts) == NUM_SCORE_BINS
    assert (counts[0], counts[1], counts[3], counts[19]) == (2, 1, 1, 3)
    assert sum(counts) == 7
    assert count_scores([]) == ()
    assert count_scores([float("nan")]) == ()
    assert count_scores(index / 20 for index in range(20)) == (1,) * 20


def test_labels_beyond_the_limit_are_summed() -> None:
    labels = [f"l{index:03}" for index in range(80) for _ in range(80 - index)]
    counts = count_labels(labels)
    assert list(counts)[:2] == ["l000", "l001"]
    assert len(counts) == MAX_LABELS + 1
    assert counts[""] == sum(80 - index for index in range(MAX_LABELS, 80))
    assert sum(counts.values()) == len(labels)
    assert count_labels(["a\ud800", "a?"]) == {"a?": 2}
    assert count_labels([]) == {}


def test_most_frequent_breaks_ties_by_name() -> None:
    assert most_frequent({"b": 1, "": 4, "a": 1, "c": 2}, 2) == {"c": 2, "a": 1, "": 5}


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


def test_the_module_is_light() -> None:
    code = "import sys, hfray.inference.receipt; sys.exit(any(m in sys.modules for m in ('torch', 'ray', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
