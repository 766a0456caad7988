"""Text that is not valid UTF-8: found row by row, repaired with U+FFFD, so that a part is always valid.

Knows bytes, strings and Arrow arrays; not files, not formats.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from hfray.errors import RowError


def decode(data: bytes) -> tuple[str, bool]:
    """The text, and whether it had to be repaired."""
    try:
        return data.decode(), False
    except UnicodeDecodeError:
        return data.decode(errors="replace"), True


def replace_surrogates(text: str) -> str:
    """Surrogate pairs joined to the character they stand for, lone ones replaced by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def without_surrogates(value: Any) -> Any:
    """A JSON value with `replace_surrogates` applied to all its strings and keys."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, list):
        return [without_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {replace_surrogates(key): without_surrogates(each) for key, each in value.items()}
    return value


def invalid_text(column: str) -> RowError:
    return RowError(f"column {column!r} is not valid UTF-8 (repaired with U+FFFD in the output)", type="InvalidText")


def repair_table(table: pa.Table) -> tuple[pa.Table, dict[int, RowError]]:
    """The table with valid text in all columns, nested ones too, and an InvalidText for each row that had other."""
    errors: dict[int, RowError] = {}
    for number, name in enumerate(table.column_names):
        column = table.column(number)
        if not _has_text(column.type) or _is_valid(column):
            continue
        pieces: list[pa.Array] = []
        for row in range(len(column)):
            piece = column.slice(row, 1).combine_chunks()
            piece = piece.chunk(0) if isinstance(piece, pa.ChunkedArray) else piece
            if not _is_valid(piece):
                errors.setdefault(row, invalid_text(name))
                raw = piece.cast(_as_binary(column.type)).to_pylist()[0]
                piece = pa.array([_decoded(raw, column.type)], column.type)
            pieces.append(piece)
        table = table.set_column(number, table.schema.field(number), pa.chunked_array(pieces, column.type))
    return table.combine_chunks() if errors else table, dict(sorted(errors.items()))


def _is_valid(values: pa.Array | pa.ChunkedArray) -> bool:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            return False
        raise
    return True


def _is_text(type: pa.DataType) -> bool:
    return bool(pt.is_string(type) or pt.is_large_string(type) or pt.is_string_view(type))


def _is_list(type: pa.DataType) -> bool:
    return bool(pt.is_list(type) or pt.is_large_list(type) or pt.is_fixed_size_list(type))


def _has_text(type: pa.DataType) -> bool:
    return _is_text(type) or any(_has_text(type.field(number).type) for number in range(type.num_fields))


def _as_binary(type: pa.DataType) -> pa.DataType:
    if _is_text(type):
        return pa.large_binary()
    if pt.is_fixed_size_list(type):
        return pa.list_(_as_binary(type.value_type), type.list_size)
    if pt.is_large_list(type):
        return pa.large_list(_as_binary(type.value_type))
    if pt.is_list(type):
        return pa.list_(_as_binary(type.value_type))
    if pt.is_struct(type):
        return pa.struct([type.field(i).with_type(_as_binary(type.field(i).type)) for i in range(type.num_fields)])
    if pt.is_map(type):
        return pa.map_(_as_binary(type.key_type), _as_binary(type.item_type))
    return type


def _decoded(value: Any, type: pa.DataType) -> Any:
    if value is None:
        return None
    if _is_text(type):
        return decode(value)[0]
    if _is_list(type):
        return [_decoded(each, type.value_type) for each in value]
    if pt.is_struct(type):
        return {type.field(i).name: _decoded(value[type.field(i).name], type.field(i).type) for i in range(len(value))}
    if pt.is_map(type):
        return [(_decoded(key, type.key_type), _decoded(item, type.item_type)) for key, item in value]
    return value
