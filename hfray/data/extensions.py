"""Refuses Arrow extension types before Arrow has built one: a type's constructor may run code (promises.md, T9).

A serialized schema names its extension types in field metadata under `ARROW:extension:name`. The key is renamed in
the bytes, by one of the same length, so that Arrow reads the storage types and no extension is ever looked up.
Format: Arrow columnar format, "Extension Types"; Parquet keeps the schema, base64, in the footer's `ARROW:schema`.
"""

from __future__ import annotations

import base64
import binascii

import pyarrow as pa

from hfray.errors import DataError

_KEY = b"ARROW:extension:name"
_INERT = b"arrow:EXTENSION:NAME"


def check_schema_bytes(message: bytes, url: str) -> pa.Schema:
    """The schema of an encapsulated IPC message, or a DataError that names the file and the extension's column."""
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(message.replace(_KEY, _INERT)))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{url}: its Arrow schema cannot be read: {error}") from error
    for field in schema:
        name = _extension_of(field)
        if name is not None:
            raise DataError(
                f"{url}: column {field.name!r} has the extension type {name!r}: extension types can run code when "
                "they are read; write the column as a plain type (its storage type), or leave it out"
            )
    return schema


def check_parquet_footer(footer: bytes, url: str) -> None:
    """Looks into the Arrow schema that a Parquet footer carries, if any, without Arrow's Parquet reader."""
    position = footer.find(b"ARROW:schema")
    while position >= 0:
        value = _thrift_string(footer, position + len(b"ARROW:schema"))
        if value is None:
            raise DataError(f"{url}: its footer has an `ARROW:schema` that cannot be checked: write the file again")
        try:
            check_schema_bytes(base64.b64decode(value, validate=True), url)
        except binascii.Error as error:
            raise DataError(f"{url}: its Arrow schema cannot be read: {error}") from error
        position = footer.find(b"ARROW:schema", position + 1)


def _extension_of(field: pa.Field) -> str | None:
    found = (field.metadata or {}).get(_INERT)
    if found is not None:
        return str(found.decode(errors="replace"))
    for number in range(field.type.num_fields):
        found = _extension_of(field.type.field(number))
        if found is not None:
            return found
    return None


def _thrift_string(data: bytes, position: int) -> bytes | None:
    """The value of a Thrift compact `KeyValue` whose key ends at `position`: field header 0x18, varint, bytes."""
    if data[position : position + 1] != b"\x18":
        return None
    position += 1
    length = shift = 0
    while position < len(data):
        byte = data[position]
        position += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return data[position : position + length]
    return None
