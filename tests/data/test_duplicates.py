"""Duplicates are found by hashes alone, in as many passes as memory allows; the first row stays."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfray.data import duplicates
from hfray.data.duplicates import encode_hashes, find_duplicates, hashes_path
from hfray.data.ledger import DRAFTS
from hfray.data.permutation import stable_hash
from hfray.data.storage import Storage
from hfray.errors import DataError


def write(storage: Storage, shards: list[list[tuple[int, int]]]) -> int:
    """shards: (hash, position) of every row."""
    storage.make_dirs(f"{DRAFTS}/hashes")
    for number, rows in enumerate(shards):
        data = encode_hashes([row for row, _ in rows], [position for _, position in rows])
        storage.replace(hashes_path(number), data)
    return sum(len(rows) for rows in shards)


@pytest.mark.parametrize("rows_at_once", [4_000_000, 700, 10])
def test_all_but_the_first_are_found_in_any_number_of_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(duplicates, "ROWS_AT_ONCE", rows_at_once)
    dice = random.Random(3)
    texts = [f"text {dice.randrange(1200)}" for _ in range(2000)]
    rows = [(stable_hash(text.encode()), position) for position, text in enumerate(texts)]
    shards = [rows[start : start + 300] for start in range(0, 2000, 300)]
    num_rows = write(Storage(str(tmp_path)), shards)
    seen: set[str] = set()
    expected = [position for position, text in enumerate(texts) if text in seen or seen.add(text)]  # type: ignore[func-returns-value]
    found = find_duplicates(Storage(str(tmp_path)), range(len(shards)), num_rows)
    assert found.tolist() == expected
    assert 500 < len(expected) < 1500


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12))
def test_hashes_that_share_one_half_are_not_equal(pairs: list[tuple[int, int]]) -> None:
    rows = [((high << 120) | (high << 64) | low, position) for position, (high, low) in enumerate(pairs)]
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write(Storage(folder), [rows])
        found = find_duplicates(Storage(folder), [0], len(rows)).tolist()
    first = {pair: position for position, pair in reversed(list(enumerate(pairs)))}
    assert found == [position for position, pair in enumerate(pairs) if first[pair] != position]


def test_no_rows_have_no_duplicates(tmp_path: Path) -> None:
    write(Storage(str(tmp_path)), [[], []])
    assert find_duplicates(Storage(str(tmp_path)), [0, 1], 0).dtype == np.int64


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write(Storage(str(tmp_path)), [[(1, 1)]])
    (tmp_path / hashes_path(0)).write_bytes(b"short")
    with pytest.raises(DataError, match=r"00000000\.bin: is damaged"):
        find_duplicates(Storage(str(tmp_path)), [0], 1)
