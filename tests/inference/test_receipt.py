from __future__ import annotations

import subprocess
import sys

import pytest

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


def test_the_module_is_light() -> None:
    code = "import sys, hfray.inference.receipt; sys.exit(any(m in sys.modules for m in ('torch', 'ray', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
