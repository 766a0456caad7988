"""JSON Lines: one object per line, `.gz` or not. Knows lines and JSON values; not what the columns mean.

A line that is no JSON object is a row all the same, with null columns and the error MalformedRow; text that is not
valid UTF-8, or holds lone surrogates, is repaired with U+FFFD and its row gets InvalidText. Empty lines are skipped.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pyarrow as pa

from hfray.data import utf8
from hfray.data.base import FileIndex, FileRef, ReadOptions, Shard, ShardRows
from hfray.data.json_types import SchemaBuilder, json_array
from hfray.data.records import lines
from hfray.data.scan import index_records, read_records
from hfray.errors import DataError, RowError


def index(file: FileRef, shard_rows: int, spool_dir: str, options: ReadOptions) -> FileIndex:
    """Parses every line: the schema is that of the whole file."""
    builder = SchemaBuilder(file.url)
    is_first = True

    def visit(record: bytes) -> bool:
        nonlocal is_first
        if is_first and record.lstrip().startswith(b"[") and not record.rstrip().endswith(b"]"):
            raise DataError(
                f"{file.url}: is one JSON array over several lines, not JSON Lines: write one object per line "
                "(jq -c '.[]' FILE)"
            )
        is_first = False
        row, _ = parse(record)
        builder.add(row)
        return True

    found = index_records(file, shard_rows, spool_dir, options, lines, visit)
    return replace(found, schema=builder.schema())


def read(shard: Shard, schema: pa.Schema) -> ShardRows:
    """The task sees the values as parsed; the table holds them in the types of `schema`."""
    rows: list[dict[str, Any]] = []
    errors: dict[int, RowError] = {}
    for number, record in enumerate(read_records(shard, lines)):
        row, error = parse(record)
        rows.append(row)
        if error is not None:
            errors[number] = error
    seen = {field.name: [row.get(field.name) for row in rows] for field in schema}
    arrays = [json_array(seen[field.name], field.type) for field in schema]
    return ShardRows(pa.Table.from_arrays(arrays, schema=schema), errors, seen)


def parse(record: bytes) -> tuple[dict[str, Any], RowError | None]:
    """The object of one line with valid text throughout, and what is wrong with it."""
    text, repaired = utf8.decode(record)
    try:
        row = _value(text)
    except json.JSONDecodeError as error:
        return {}, RowError(f"not JSON: {error.msg} at character {error.pos + 1}", type="MalformedRow")
    except (RecursionError, ValueError) as error:  # ValueError: an integer of over 4300 digits
        return {}, RowError(f"not usable JSON: {type(error).__name__}", type="MalformedRow")
    if not isinstance(row, dict):
        return {}, RowError(f"not a JSON object but {_KINDS[type(row)]}", type="MalformedRow")
    if repaired:
        return row, RowError("the line is not valid UTF-8 (repaired with U+FFFD in the output)", type="InvalidText")
    if "\\ud" in text or "\\uD" in text:  # only an escape can bring in a surrogate
        whole = utf8.without_surrogates(row)
        if whole != row:
            names = [name for name in row if row[name] != whole.get(name)]
            where = f"column {utf8.replace_surrogates(names[0])!r}" if names else "a key"
            return whole, RowError(
                f"{where} contains a lone surrogate (repaired with U+FFFD in the output)", type="InvalidText"
            )
    return row, None


def _value(text: str) -> Any:
    """`json.loads`, whose checks around the value itself cost as much as a short line."""
    try:
        value, end = _decode(text)
    except json.JSONDecodeError:  # a blank before the value, or a mistake
        return json.loads(text)
    return value if end == len(text) else json.loads(text)


_decode = json.JSONDecoder().raw_decode
_KINDS = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a boolean", type(None): "null"}
