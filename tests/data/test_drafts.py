"""Drafts: a segment holds exactly the rows that were sent there, in their order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hfray.data.drafts import draft_facts, draft_ledger, encode_draft, read_segment
from hfray.data.ledger import Ledger
from hfray.errors import DataError


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    each = draft_ledger(Ledger(str(tmp_path / "out"), "parquet", "f" * 64))
    each.open({"fingerprint": "f" * 64})
    return each


def draft(num_rows: int) -> tuple[pa.Table, bytes]:
    dice = np.random.default_rng(5)
    splits, groups = dice.integers(0, 2, num_rows), dice.integers(0, 4, num_rows)
    table = pa.table({"n": np.arange(num_rows), "split": splits, "group": groups})
    return table, encode_draft(table, splits, groups, {"rows": num_rows})


def test_segments_are_the_rows_sent_there(ledger: Ledger) -> None:
    table, data = draft(500)
    assert ledger.commit_part(3, data)
    assert draft_facts(data, "draft") == {"rows": 500}
    rows = table.to_pylist()
    for split in range(2):
        for group in range(4):
            found = read_segment(ledger.storage, 3, split, group)
            assert found is not None
            assert found.to_pylist() == [row for row in rows if (row["split"], row["group"]) == (split, group)]
    assert read_segment(ledger.storage, 3, 2, 0) is None
    assert draft(500)[1] == data


def test_an_empty_draft(ledger: Ledger) -> None:
    ledger.commit_part(0, draft(0)[1])
    assert read_segment(ledger.storage, 0, 0, 0) is None


def test_a_damaged_draft_is_named(ledger: Ledger) -> None:
    ledger.commit_part(0, draft(50)[1][:100])
    with pytest.raises(DataError, match=r"part-00000000\.arrow: is damaged"):
        read_segment(ledger.storage, 0, 0, 0)
    with pytest.raises(DataError, match="draft 0 is damaged"):
        draft_facts(b"nothing", "draft 0")
