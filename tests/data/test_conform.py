from __future__ import annotations

import pyarrow as pa
import pytest

from hfray.data.conform import conform, merge_schemas, plain_schema
from hfray.errors import DataError, SpecError


@pytest.mark.parametrize(
    ("a", "b", "merged"),
    [
        (pa.null(), pa.string(), pa.string()),
        (pa.binary(), pa.null(), pa.binary()),
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.list_(pa.null()), pa.list_(pa.string()), pa.list_(pa.string())),
        (pa.struct({"a": pa.int64()}), pa.struct({"b": pa.string()}), pa.struct({"a": pa.int64(), "b": pa.string()})),
        (pa.string(), pa.binary(), None),
        (pa.int64(), pa.string(), None),
        (pa.bool_(), pa.int64(), None),
    ],
)
def test_merging(a: pa.DataType, b: pa.DataType, merged: pa.DataType | None) -> None:
    schemas = [("/x/a", pa.schema({"c": a})), ("/x/b", pa.schema({"c": b}))]
    if merged is None:
        with pytest.raises(SpecError, match=r"column 'c' is .* in /x/a but .* in /x/b"):
            merge_schemas(schemas)
        return
    schema = merge_schemas(schemas)
    assert schema == pa.schema({"c": merged})
    for type in (a, b):
        table = conform(pa.table({"c": pa.nulls(2, type)}), schema, "x")
        assert table.schema == schema
        table.validate(full=True)


def test_nested_values_keep_their_fields() -> None:
    table = pa.table({"c": [{"a": 1}, None]})
    schema = pa.schema({"more": pa.string(), "c": pa.struct({"b": pa.string(), "a": pa.float64()})})
    assert conform(table, schema, "x").to_pylist() == [
        {"more": None, "c": {"b": None, "a": 1.0}}, {"more": None, "c": None},
    ]  # fmt: skip


def test_big_integers_become_double_like_any_other() -> None:
    table = conform(pa.table({"c": [2**60 + 1]}), pa.schema({"c": pa.float64()}), "x")
    assert table["c"].to_pylist() == [float(2**60)]


def test_what_cannot_be_cast_is_named() -> None:
    with pytest.raises(DataError, match=r"/x/a: column 'c' is string"):
        conform(pa.table({"c": ["x"]}), pa.schema({"c": pa.struct({"a": pa.int64()})}), "/x/a")


def test_plain_schema_drops_metadata_and_dictionaries() -> None:
    schema = pa.schema([pa.field("a", pa.dictionary(pa.int32(), pa.string()), nullable=False)], metadata={"k": "v"})
    assert plain_schema(schema).equals(pa.schema({"a": pa.string()}), check_metadata=True)
