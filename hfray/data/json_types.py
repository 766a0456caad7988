"""Arrow types for JSON values, inferred over a whole file and merged. Knows JSON values; not files.

    null + X -> X        int + float -> double        lists and objects: element by element, field by field
    anything else        -> string: strings stay as they are, other values become JSON text

So do integers beyond 64 bits, objects without or with very many keys, and what lies very deep.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from hfray.errors import DataError

_MAX_DEPTH = 16
_MAX_FIELDS = 1000
_MAX_COLUMNS = 10_000
_MAX_SIGNATURES = 10_000
_INT64 = range(-(2**63), 2**63)

_SCALARS = {
    type(None): pa.null(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
}


class SchemaBuilder:
    """Merges the rows of a file into one schema; columns in the order of their first appearance."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._columns: dict[str, pa.DataType] = {}
        self._seen: set[Any] = set()

    def add(self, row: dict[str, Any]) -> None:
        """Raises DataError when the file has over 10,000 different keys: they are data, not columns."""
        signature = _signature(row, 0)
        if signature in self._seen:
            return
        if len(self._seen) < _MAX_SIGNATURES:
            self._seen.add(signature)
        for name, value in row.items():
            known = self._columns.get(name)
            found = _infer(value, 0)
            self._columns[name] = found if known is None else merge_types(known, found)
        if len(self._columns) > _MAX_COLUMNS:
            raise DataError(f"{self._name}: has over {_MAX_COLUMNS:,} different keys: its keys seem to be data")

    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(name, _storable(type)) for name, type in self._columns.items()])


def merge_types(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The type that holds the values of both."""
    if a.equals(b) or pt.is_null(b):
        return a
    if pt.is_null(a):
        return b
    if {a, b} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pt.is_list(a) and pt.is_list(b):
        return pa.list_(merge_types(a.value_type, b.value_type))
    if pt.is_struct(a) and pt.is_struct(b):
        fields = {field.name: field.type for field in a}
        for field in b:
            known = fields.get(field.name)
            fields[field.name] = field.type if known is None else merge_types(known, field.type)
        if len(fields) <= _MAX_FIELDS:
            return pa.struct(list(fields.items()))
    return pa.string()


def json_array(values: list[Any], type: pa.DataType) -> pa.Array:
    """Parsed JSON values as an Arrow array of the type that their file, or all files, were given."""
    try:
        return pa.array(values, type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([_fit(value, type) for value in values], type)


def _signature(value: Any, depth: int) -> Any:
    """Equal signatures, equal inferred types."""
    kind = type(value)
    if kind is int:
        return int if value in _INT64 else "big"
    if kind is dict:
        if depth > _MAX_DEPTH:
            return "deep"
        return (tuple(value), tuple([_signature(each, depth + 1) for each in value.values()]))
    if kind is list:
        return "deep" if depth > _MAX_DEPTH else frozenset([_signature(each, depth + 1) for each in value])
    return kind


def _infer(value: Any, depth: int) -> pa.DataType:
    if isinstance(value, list) and depth < _MAX_DEPTH:
        merged = pa.null()
        for each in {_signature(each, depth): each for each in value}.values():
            merged = merge_types(merged, _infer(each, depth + 1))
        return pa.list_(merged)
    if isinstance(value, dict) and depth < _MAX_DEPTH and len(value) <= _MAX_FIELDS:
        return pa.struct([(name, _infer(each, depth + 1)) for name, each in value.items()])
    if type(value) is int and value not in _INT64:
        return pa.string()
    return _SCALARS.get(type(value), pa.string())


def _storable(type: pa.DataType) -> pa.DataType:
    """Parquet cannot hold an object without fields."""
    if pt.is_list(type):
        return pa.list_(_storable(type.value_type))
    if pt.is_struct(type):
        return pa.struct([(field.name, _storable(field.type)) for field in type]) if len(type) else pa.string()
    return type


def _fit(value: Any, type: pa.DataType) -> Any:
    if value is None:
        return None
    if pt.is_string(type) or pt.is_large_string(type):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if pt.is_floating(type):
        return float(value)
    if pt.is_list(type):
        return [_fit(each, type.value_type) for each in value]
    if pt.is_struct(type):
        return {field.name: _fit(value.get(field.name), field.type) for field in type}
    return value
