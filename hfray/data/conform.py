"""One schema for all parts: schemas of several files merged, tables fitted to the result. Knows Arrow types only."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.types as pt

from hfray.errors import DataError, SpecError


def plain_type(type: pa.DataType) -> pa.DataType:
    """Dictionary-encoded columns are read as their values."""
    return plain_type(type.value_type) if pt.is_dictionary(type) else type


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Names and types alone: no metadata, everything nullable."""
    return pa.schema([pa.field(field.name, plain_type(field.type)) for field in schema])


def merge_schemas(schemas: Iterable[tuple[str, pa.Schema]]) -> pa.Schema:
    """The columns of all files, in the order of their first appearance; a file without a column has nulls there.

    Types may differ by what loses nothing that matters (null to anything, int to a wider int or to double, string to
    large string, fields missing in an object). Raises SpecError that names the column and both files.
    """
    merged: dict[str, tuple[str, pa.Field]] = {}
    last: pa.Schema | None = None
    for url, schema in schemas:
        if schema is last:
            continue
        last = schema
        for field in schema:
            known = merged.get(field.name)
            if known is None:
                merged[field.name] = (url, field)
            elif not known[1].type.equals(field.type):
                merged[field.name] = (known[0], _merge_fields(known, (url, field)))
    return pa.schema([field for _, field in merged.values()])


def _merge_fields(known: tuple[str, pa.Field], other: tuple[str, pa.Field]) -> pa.Field:
    types = [known[1].type, other[1].type]
    try:
        if any(map(_is_bytes, types)) and not all(map(_is_bytes, types)) and not any(map(pt.is_null, types)):
            raise pa.ArrowTypeError("bytes are not text")
        both = [pa.schema([field]) for _, field in (known, other)]
        return pa.unify_schemas(both, promote_options="permissive").field(0)
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        raise SpecError(
            f"input: column {known[1].name!r} is {types[0]} in {known[0]} but {types[1]} in {other[0]}: "
            "convert one of them, or score them in two jobs"
        ) from None


def _is_bytes(type: pa.DataType) -> bool:
    return bool(pt.is_binary(type) or pt.is_large_binary(type) or pt.is_fixed_size_binary(type))


def conform(table: pa.Table, schema: pa.Schema, url: str) -> pa.Table:
    """The table with exactly the columns and types of `schema`: cast, and null where a column is missing."""
    if table.schema.equals(schema):
        return table
    columns = []
    for field in schema:
        number = table.schema.get_field_index(field.name)
        if number < 0:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(number)
        if not column.type.equals(field.type):
            try:
                column = column.cast(field.type, safe=False)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
                raise DataError(
                    f"{url}: column {field.name!r} is {column.type} and cannot be read as {field.type}: {error}"
                ) from error
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)
