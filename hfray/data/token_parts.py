"""A part of tokens: examples in columns, and in the file's own metadata the facts that its receipt needs.

Knows Arrow and Parquet; not how the tokens were made, not where they are committed. A part holds no clock, host or
attempt id: the same shard gives the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hfray.data.layout import PartFormat
from hfray.errors import DataError
from hfray.types import Column, Ragged

FACTS = b"hfray"
ROW_GROUP_ROWS = 1024  # what a reader of single examples has to read for one
BATCH_ROWS = 1000  # what `datasets` writes at once


def to_table(columns: Mapping[str, Column], schema: pa.Schema) -> pa.Table:
    """Columns as Arrow, without a copy where the types allow it."""
    return pa.Table.from_arrays([_array(columns[field.name], field.type) for field in schema], schema=schema)


def encode_tokens(table: pa.Table, format: PartFormat, facts: Mapping[str, Any]) -> bytes:
    """The bytes of a part: Parquet, or the Arrow stream that `datasets` saves."""
    table = table.replace_schema_metadata({FACTS: json.dumps(facts, separators=(",", ":")).encode()})
    sink = io.BytesIO()
    if format == "arrow":
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=BATCH_ROWS)
    else:
        # Token ids hardly repeat within a page, so that a dictionary costs time and saves nothing after compression.
        pq.write_table(
            table, sink, compression="zstd", compression_level=1, row_group_size=ROW_GROUP_ROWS, use_dictionary=False
        )
    return sink.getvalue()


def decode_tokens(data: bytes, format: PartFormat, name: str) -> pa.Table:
    """The table of a part. Raises DataError when the file is not a whole part."""
    try:
        if format == "arrow":
            with pa.ipc.open_stream(data) as reader:
                return reader.read_all()
        return pq.read_table(io.BytesIO(data))
    except (ValueError, OSError, pa.ArrowException) as error:
        raise _damaged(name, error) from None


def facts_of(data: bytes, format: PartFormat, name: str) -> dict[str, Any]:
    """What `encode_tokens` was told of a part. Raises DataError as `decode_tokens`."""
    try:
        schema = pa.ipc.open_stream(data).schema if format == "arrow" else pq.read_schema(io.BytesIO(data))
        found: dict[str, Any] = json.loads(schema.metadata[FACTS])
    except (ValueError, KeyError, TypeError, OSError, pa.ArrowException) as error:
        raise _damaged(name, error) from None
    return found


def _damaged(name: str, error: Exception) -> DataError:
    return DataError(
        f"{name} is not a readable part ({error}); it was changed after it was written: "
        "delete it and run the same command again"
    )


def _array(column: Column, type_: pa.DataType) -> pa.Array:
    if not isinstance(column, Ragged):
        if isinstance(column, np.ndarray) and column.ndim == 2:
            flat = pa.array(column.reshape(-1)).cast(type_.value_type)
            return pa.ListArray.from_arrays(np.arange(len(column) + 1, dtype=np.int32) * column.shape[1], flat)
        return pa.array(column, type_)
    offsets = column.offsets.astype(np.int32)
    if column.values.ndim == 2:  # lists of pairs
        width = column.values.shape[1]
        pairs = pa.FixedSizeListArray.from_arrays(pa.array(column.values.reshape(-1)), width)
        return pa.ListArray.from_arrays(offsets, pairs).cast(type_)
    return pa.ListArray.from_arrays(offsets, pa.array(column.values, type_.value_type))


def from_table(table: pa.Table) -> dict[str, Column]:
    """The columns of a table as arrays: what `to_table` was given."""
    return {field.name: _column(table[field.name].combine_chunks(), field.type) for field in table.schema}


def _column(array: Any, type_: pa.DataType) -> Column:
    if isinstance(array, pa.ChunkedArray):  # combine_chunks of nothing
        array = array.chunk(0) if array.num_chunks else pa.array([], type_)
    if (
        pa.types.is_list(type_)
        and not pa.types.is_nested(type_.value_type)
        and not pa.types.is_string(type_.value_type)
    ):
        offsets = array.offsets.to_numpy().astype(np.int64)
        values = array.values.to_numpy(zero_copy_only=False)
        return Ragged(values[offsets[0] : offsets[-1]], offsets - offsets[0])
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    return list(array.to_pylist())
