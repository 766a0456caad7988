"""What is made of all parts at the end: `errors.parquet` and metrics. Reads one part at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hfray.data.ledger import Ledger
from hfray.data.parts import ERROR_TYPE, decode_part
from hfray.errors import SpecError
from hfray.inference.receipt import Receipt
from hfray.kinds.check import Checked

_PLAIN_TYPES = (pa.types.is_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)


def write_errors(ledger: Ledger, receipts: Sequence[Receipt], schema: pa.Schema) -> None:
    """`errors.parquet`: `part` (file name), `row` (number in it), the input columns, `error`; also without failures.

    schema: of the input columns. In a jsonl output, values that JSON cannot hold are kept as JSON text.
    """
    fields = [pa.field("part", pa.string()), pa.field("row", pa.int64())]
    fields += [pa.field(each.name, _error_type(each.type, ledger.format)) for each in schema]
    target = pa.schema([*fields, pa.field("error", ERROR_TYPE)])
    with ledger.storage.writer("errors.parquet") as file, pq.ParquetWriter(file, target, compression="zstd") as writer:
        for receipt in receipts:
            if receipt.failed:
                name = ledger.layout.name(receipt.shard)
                table = decode_part(ledger.read_part(receipt.shard), ledger.format, name)
                writer.write_table(_failed_rows(table, name, target))


def _failed_rows(table: pa.Table, name: str, target: pa.Schema) -> pa.Table:
    failed = [row for row, error in enumerate(table.column("error").to_pylist()) if error is not None]
    rows = table.take(pa.array(failed, type=pa.int64()))
    arrays: list[Any] = [pa.array([name] * len(failed)), pa.array(failed, type=pa.int64())]
    for field in list(target)[2:]:
        values = rows.column(field.name) if field.name in rows.column_names else pa.nulls(len(failed))
        arrays.append(_cast(values, field.type))
    return pa.Table.from_arrays(
        [pa.chunked_array([a]) if isinstance(a, pa.Array) else a for a in arrays], schema=target
    )


def _cast(values: Any, type_: pa.DataType) -> Any:
    if values.type == type_:
        return values
    if pa.types.is_string(type_) and not pa.types.is_primitive(values.type):
        texts = [None if each is None else json.dumps(each, ensure_ascii=False) for each in values.to_pylist()]
        return pa.array(texts, type=type_)
    if pa.types.is_struct(type_):
        return pa.array(values.to_pylist(), type=type_)
    return values.cast(type_)


def _error_type(type_: pa.DataType, format: str) -> pa.DataType:
    if format == "parquet" or any(is_plain(type_) for is_plain in _PLAIN_TYPES):
        return type_
    return pa.string()


def compute_metrics(checked: Checked, ledger: Ledger, receipts: Sequence[Receipt]) -> dict[str, float]:
    """The task's metrics over all rows that did not fail and have a reference, where one is needed; {} if the job asks
    for none. Raises SpecError when no row has both.
    """
    if checked.job.metrics is None:
        return {}
    label = checked.job.metrics.label
    pairs = list(_pairs(ledger, receipts, label))
    if not pairs:
        needed = "a result" if label is None else f"both a result and a value in {label!r}"
        raise SpecError(f"metrics{'' if label is None else '.label'}: no row has {needed}")
    return checked.task.metrics([result for result, _ in pairs], [reference for _, reference in pairs])


def _pairs(ledger: Ledger, receipts: Sequence[Receipt], label: str | None) -> Iterator[tuple[Any, Any]]:
    """Results with their references; label: None for no references."""
    names = ("result", "error", *([] if label is None else [label]))
    for receipt in receipts:
        if not receipt.rows:
            continue
        table = decode_part(ledger.read_part(receipt.shard), ledger.format, ledger.layout.name(receipt.shard), names)
        columns = [table.column(name).to_pylist() for name in names]
        references = columns[2] if label is not None else [None] * table.num_rows
        for result, error, reference in zip(*columns[:2], references, strict=True):
            if error is None and (label is None or reference is not None):
                yield result, reference
