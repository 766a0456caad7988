"""One part: every row of one shard, its input columns, `result` and `error`. Knows the file formats of the output;
not where it is committed, not Ray.

A part holds no clock, host or attempt id: the same shard gives the same bytes.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hfray.data.layout import PartFormat
from hfray.errors import DataError, RowError
from hfray.types import Result

ERROR_TYPE = pa.struct([("type", pa.string()), ("message", pa.string())])


def assemble(columns: pa.Table, results: Sequence[Result | RowError], result_type: pa.DataType) -> pa.Table:
    """Input columns, then `result` (null where it failed) and `error` (null where it did not)."""
    values = [None if isinstance(each, RowError) else each for each in results]
    errors = [each.as_record() if isinstance(each, RowError) else None for each in results]
    table = columns.append_column("result", pa.array(values, type=result_type))
    return table.append_column("error", pa.array(errors, type=ERROR_TYPE)).replace_schema_metadata(None)


def encode_part(table: pa.Table, format: PartFormat) -> bytes:
    """The bytes of a part file."""
    if format == "jsonl":
        lines = (json.dumps(_plain(row), ensure_ascii=False, separators=(",", ":")) for row in table.to_pylist())
        return "".join(line + "\n" for line in lines).encode("utf-8", errors="replace")
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", compression_level=1, row_group_size=max(1, table.num_rows))
    return sink.getvalue()


def decode_part(data: bytes, format: PartFormat, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a part, or some of its columns. Raises DataError when the file is not a whole part."""
    try:
        if format == "jsonl":
            # Not splitlines(): a text may hold U+2028, which is a line end to str but not to JSON Lines.
            rows = [json.loads(line) for line in data.decode("utf-8").split("\n") if line]
            return pa.Table.from_pylist(rows) if rows else pa.table({"result": [], "error": []})
        return pq.read_table(io.BytesIO(data), columns=None if columns is None else list(columns))
    except (ValueError, OSError, pa.ArrowException) as error:
        raise DataError(
            f"{name} is not a readable part ({error}); it was changed after it was written: "
            "delete it and run the same command again"
        ) from None


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What the manifest says of a part, computed from its bytes alone."""

    rows: int
    failed: int
    size_bytes: int
    sha256: str
    error_types: dict[str, int]


def part_facts(table: pa.Table, data: bytes) -> PartFacts:
    """Counts and checksum of a part."""
    types: dict[str, int] = {}
    for error in table.column("error").to_pylist():
        if error is not None:
            types[error["type"]] = types.get(error["type"], 0) + 1
    return PartFacts(table.num_rows, sum(types.values()), len(data), hashlib.sha256(data).hexdigest(), types)


def _plain(value: Any) -> Any:
    """JSON has no bytes, no times and no NaN: base64, ISO 8601 and null stand for them."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):  # Arrow gives the entries of a map as tuples
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return str(value)
    return value
