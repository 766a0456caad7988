from __future__ import annotations

import collections
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfray.data.json_types import SchemaBuilder, json_array, merge_types
from hfray.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.sampled_from("xyz"), VALUES), max_size=6))
@settings(max_examples=80, deadline=None)
def test_any_json_fits_the_schema_inferred_from_it(rows: list[dict[str, Any]]) -> None:
    builder = SchemaBuilder("x")
    for row in rows:
        builder.add(row)
    for field in builder.schema():
        values = [row.get(field.name) for row in rows]
        array = json_array(values, field.type)
        array.validate(full=True)
        for value, kept in zip(values, array.to_pylist(), strict=True):
            assert (value is None) == (kept is None)
            if isinstance(value, str) or field.type in (pa.bool_(), pa.int64()):
                assert kept == value
            elif pa.types.is_string(field.type) and value is not None:
                assert json.loads(kept) == value


def test_merge_is_symmetric_but_for_field_order() -> None:
    types = [
        pa.null(),
        pa.bool_(),
        pa.int64(),
        pa.float64(),
        pa.string(),
        pa.list_(pa.int64()),
        pa.struct([("a", pa.int64())]),
    ]
    for a in types:
        assert merge_types(a, a) == a
        for b in types:
            assert merge_types(a, b) == merge_types(b, a)
    assert merge_types(pa.bool_(), pa.int64()) == pa.string()


def test_keys_that_are_data_are_refused() -> None:
    builder = SchemaBuilder("data.jsonl")
    with pytest.raises(DataError, match=r"data\.jsonl: .*keys seem to be data"):
        collections.deque((builder.add({f"key {row} {n}": 1 for n in range(100)}) for row in range(200)), maxlen=0)
    builder = SchemaBuilder("x")
    builder.add({"a": {str(n): n for n in range(2000)}})
    assert builder.schema().field("a").type == pa.string()


def test_very_deep_values_become_text() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    builder = SchemaBuilder("x")
    builder.add({"a": deep})
    array = json_array([deep], builder.schema().field("a").type)
    assert "[[[1]]]" in str(array.to_pylist())
