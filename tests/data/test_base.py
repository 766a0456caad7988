from __future__ import annotations

import pyarrow as pa
import pytest

from hfray.data.base import FileIndex, FileRef, ShardRows
from hfray.errors import RowError


def rows() -> ShardRows:
    table = pa.table({"a": [1, 2, 3], "b": ["x", "5", None]})
    return ShardRows(table, {1: RowError("bad", type="Bad")}, {"b": ["x", 5, None], "image": [b"1", b"2", b"3"]})


def test_a_task_sees_values_as_they_were() -> None:
    assert rows().columns == ("a", "b", "image")
    assert rows().rows()[1] == {"a": 2, "b": 5, "image": b"2"}
    assert rows().rows(["image", "other"]) == [{"image": b"1"}, {"image": b"2"}, {"image": b"3"}]
    assert rows().rows([]) == [{}, {}, {}]


def test_take_keeps_all_in_step() -> None:
    taken = rows().take([2, 1])
    assert taken.table.to_pylist() == [{"a": 3, "b": None}, {"a": 2, "b": "5"}]
    assert taken.rows() == [{"a": 3, "b": None, "image": b"3"}, {"a": 2, "b": 5, "image": b"2"}]
    assert {row: error.type for row, error in taken.errors.items()} == {1: "Bad"}
    assert rows().take([]).rows() == []


def test_slices_outside_a_file_are_a_mistake() -> None:
    index = FileIndex(FileRef("x", 1, "v", "parquet"), 10, 5, pa.schema([]), "d")
    assert index.slice(5, 0).num_rows == 0
    with pytest.raises(ValueError, match="of a file with 5 rows"):
        index.slice(3, 3)
