"""Token parts: columns to files and back, the same bytes each time, facts in the file itself."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.data.token_parts import decode_tokens, encode_tokens, facts_of, from_table, to_table
from hfray.errors import DataError
from hfray.types import Column, Ragged

SCHEMA = pa.schema(
    {
        "input_ids": pa.list_(pa.int32()),
        "labels": pa.int32(),
        "weights": pa.list_(pa.float32()),
        "offsets": pa.list_(pa.list_(pa.int32(), 2)),
        "packed": pa.list_(pa.int32()),
        "id": pa.string(),
    }
)
COLUMNS: dict[str, Column] = {
    "input_ids": Ragged.of([[1, 2, 3], [], [4]]),
    "labels": np.array([0, 2, 1], np.int32),
    "weights": Ragged.of([[0.5], [1.0, 0.0], []], np.float32),
    "offsets": Ragged(np.array([[0, 3], [3, 5], [-1, -1]], np.int32), np.array([0, 2, 2, 3], np.int64)),
    "packed": np.array([[1, 2], [3, 4], [5, 6]], np.int32),
    "id": ["a", "b", "ü"],
}
FACTS = {"rows": 3, "names": []}


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_columns_come_back(format: Any) -> None:
    data = encode_tokens(to_table(COLUMNS, SCHEMA), format, FACTS)
    table = decode_tokens(data, format, "part")
    assert table.to_pylist() == [
        {
            "input_ids": [1, 2, 3],
            "labels": 0,
            "weights": [0.5],
            "offsets": [[0, 3], [3, 5]],
            "packed": [1, 2],
            "id": "a",
        },
        {"input_ids": [], "labels": 2, "weights": [1.0, 0.0], "offsets": [], "packed": [3, 4], "id": "b"},
        {"input_ids": [4], "labels": 1, "weights": [], "offsets": [[-1, -1]], "packed": [5, 6], "id": "ü"},
    ]
    assert facts_of(data, format, "part") == FACTS
    assert encode_tokens(to_table(COLUMNS, SCHEMA), format, FACTS) == data


def test_from_table_gives_what_to_table_was_given() -> None:
    table = to_table(COLUMNS, SCHEMA)
    found = from_table(pa.concat_tables([table, table]).slice(2, 3).drop_columns(["offsets"]))
    ids, labels = found["input_ids"], found["labels"]
    assert isinstance(ids, Ragged)
    assert [ids[row].tolist() for row in range(3)] == [[4], [1, 2, 3], []]
    assert isinstance(labels, np.ndarray)
    assert labels.tolist() == [1, 0, 2]
    assert found["id"] == ["ü", "a", "b"]


def test_an_empty_table() -> None:
    table = SCHEMA.empty_table()
    assert decode_tokens(encode_tokens(table, "parquet", FACTS), "parquet", "part").num_rows == 0
    ids = from_table(table)["input_ids"]
    assert isinstance(ids, Ragged)
    assert len(ids) == 0


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_a_damaged_part_is_named(format: Any) -> None:
    data = encode_tokens(to_table(COLUMNS, SCHEMA), format, FACTS)
    for broken in (data[:40], b"", b"x" * 200):
        with pytest.raises(DataError, match="part-7 is not a readable part"):
            facts_of(broken, format, "part-7")


def test_anyone_reads_the_parquet(tmp_path: Path) -> None:
    (tmp_path / "part.parquet").write_bytes(encode_tokens(to_table(COLUMNS, SCHEMA), "parquet", FACTS))
    assert pq.read_table(tmp_path / "part.parquet").schema.remove_metadata() == SCHEMA
    assert pq.ParquetFile(io.BytesIO((tmp_path / "part.parquet").read_bytes())).num_row_groups == 1
