"""Parts: equal shards give equal bytes, and what was written comes back or is refused."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pyarrow as pa
import pytest

from hfray.data.parts import ERROR_TYPE, assemble, decode_part, encode_part, part_facts
from hfray.errors import DataError, RowError

RESULT = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32())]))


def part(texts: list[Any] | None = None) -> pa.Table:
    texts = texts if texts is not None else ["a", "b", "c"]
    results: list[Any] = [[{"label": "warm", "score": 0.5}]] * len(texts)
    if len(texts) > 1:
        results[1] = RowError("text is null", type="NullText")
    return assemble(pa.table({"text": pa.array(texts, pa.string())}), results, RESULT)


def test_every_row_has_a_result_or_an_error() -> None:
    rows = part().to_pylist()
    assert [row["error"] for row in rows] == [None, {"type": "NullText", "message": "text is null"}, None]
    assert [row["result"] is None for row in rows] == [False, True, False]
    assert part().schema.field("error").type == ERROR_TYPE


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_parts_come_back(format: Any) -> None:
    data = encode_part(part(), format)
    assert data == encode_part(part(), format), "equal tables, equal bytes"
    assert decode_part(data, format, "part").to_pylist() == part().to_pylist()
    facts = part_facts(decode_part(data, format, "part"), data)
    assert (facts.rows, facts.failed, facts.size_bytes, facts.error_types) == (3, 1, len(data), {"NullText": 1})


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_a_part_without_rows_is_a_part(format: Any) -> None:
    data = encode_part(part([]), format)
    assert part_facts(decode_part(data, format, "part"), data).rows == 0


def test_some_columns_of_a_part() -> None:
    assert decode_part(encode_part(part(), "parquet"), "parquet", "part", ("error",)).column_names == ["error"]


def test_jsonl_holds_line_separators_inside_a_text() -> None:
    texts = ["one\u2028line", "two\x85lines\r", "three\nlines"]
    data = encode_part(part(texts), "jsonl")
    assert data.count(b"\n") == 3
    assert decode_part(data, "jsonl", "part")["text"].to_pylist() == texts


def test_jsonl_has_a_form_for_what_json_lacks() -> None:
    columns = pa.table(
        {
            "bytes": pa.array([b"\xff\x00"]),
            "nan": pa.array([float("nan")]),
            "infinite": pa.array([float("-inf")]),
            "when": pa.array([datetime.datetime(2026, 3, 1, 12, 30)]),
            "day": pa.array([datetime.date(2026, 3, 1)]),
            "long": pa.array([datetime.timedelta(seconds=90)]),
            "map": pa.array([[("key", b"\x00")]], pa.map_(pa.string(), pa.binary())),
            "nested": pa.array([[{"a": float("nan")}]]),
        }
    )
    row = json.loads(encode_part(assemble(columns, [None], pa.null()), "jsonl"))
    assert row["bytes"] == "/wA="
    assert row["nan"] is None
    assert row["infinite"] is None
    assert row["when"] == "2026-03-01T12:30:00"
    assert row["day"] == "2026-03-01"
    assert row["long"] == 90.0
    assert row["map"] == [["key", "AA=="]]
    assert row["nested"] == [{"a": None}]


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_half_a_part_is_refused_by_name(format: Any, keep: float) -> None:
    data = encode_part(part(), format)
    with pytest.raises(DataError, match="part-7 is not a readable part"):
        decode_part(data[: int(len(data) * keep)], format, "part-7")
