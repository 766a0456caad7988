"""CSV as Python's `csv` module reads it: header row, quoted newlines, `""` for a quote. All columns are strings.

A row with more or fewer fields than the header gets the error MalformedRow and keeps those that fit. Empty lines are
skipped. A header field without a name is called `column_<number>`. `.tsv` files have tabs unless told otherwise.
"""

from __future__ import annotations

import csv
from dataclasses import replace

import pyarrow as pa

from hfray.data import utf8
from hfray.data.base import FileIndex, FileRef, ReadOptions, Shard, ShardRows
from hfray.data.conform import conform
from hfray.data.records import Scanner, csv_records
from hfray.data.scan import index_records, read_records
from hfray.errors import DataError, RowError, SpecError

# The module's default, 128 KiB for one field, is less than a long text.
csv.field_size_limit(2**31 - 1)


def index(file: FileRef, shard_rows: int, spool_dir: str, options: ReadOptions) -> FileIndex:
    """Finds the records; the header names the columns. Raises DataError for a file without a usable header."""
    header: list[str] = []

    def visit(record: bytes) -> bool:
        if header:
            return True
        header.extend(_header(record, file, options))
        return False

    found = index_records(file, shard_rows, spool_dir, options, scanner(file, options), visit)
    if not header:
        raise DataError(f"{file.url}: is empty: a CSV file starts with a header row")
    return replace(found, header=tuple(header), schema=pa.schema([(name, pa.string()) for name in header]))


def read(shard: Shard, schema: pa.Schema) -> ShardRows:
    texts: list[str] = []
    errors: dict[int, RowError] = {}
    for number, record in enumerate(read_records(shard, scanner(shard.file, shard.options))):
        text, repaired = utf8.decode(record)
        texts.append(text)
        if repaired:
            errors[number] = RowError(
                "the row is not valid UTF-8 (repaired with U+FFFD in the output)", type="InvalidText"
            )
    width = len(shard.header)
    rows: list[list[str | None]] = []
    for number, fields in enumerate(csv.reader(texts, delimiter=_delimiter(shard.file, shard.options))):
        row: list[str | None] = [*fields]
        if len(row) != width:
            errors.setdefault(number, RowError(f"{len(row)} fields where the header has {width}", type="MalformedRow"))
            row = [*row[:width], *[None] * (width - len(row))]
        rows.append(row)
    columns = list(zip(*rows, strict=True)) if rows else [()] * width
    table = pa.table([pa.array(column, pa.string()) for column in columns], names=list(shard.header))
    return ShardRows(conform(table, schema, shard.file.url), errors)


def _header(record: bytes, file: FileRef, options: ReadOptions) -> list[str]:
    text, repaired = utf8.decode(record)
    if repaired:
        raise DataError(f"{file.url}: the header is not valid UTF-8: convert the file (iconv -t UTF-8)")
    fields = next(csv.reader([text], delimiter=_delimiter(file, options)))
    names = [name.strip() or f"column_{number}" for number, name in enumerate(fields)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{file.url}: the header has the column {twice[0]!r} twice: rename one of them")
    return names


def scanner(file: FileRef, options: ReadOptions) -> Scanner:
    """For this file's delimiter."""
    return csv_records(_delimiter(file, options))


def _delimiter(file: FileRef, options: ReadOptions) -> str:
    delimiter = options.delimiter or ("\t" if file.url.lower().removesuffix(".gz").endswith(".tsv") else ",")
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\x00 ':
        raise SpecError(f"input.delimiter: {delimiter!r} is not one ASCII character other than quote, space or newline")
    return delimiter
