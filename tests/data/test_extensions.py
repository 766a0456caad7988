"""T9 of the threat model: a file with an extension type is refused before Arrow has built the type."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.data.extensions import check_parquet_footer
from hfray.errors import DataError
from tests.data.reading import read_all

NAME = "hfray.tests.pickled"
"""Not that of Ray, which may have registered its own in this process; tests/promises/test_r6_rows.py has that name."""
BUILT: list[bytes] = []
"""The canary: every serialized extension type that Arrow asked us to rebuild."""


class Pickled(pa.ExtensionType):
    """Stands for Ray's type of columns of pickles."""

    def __init__(self) -> None:
        super().__init__(pa.binary(), NAME)

    def __arrow_ext_serialize__(self) -> bytes:
        return b"payload"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Pickled:
        BUILT.append(serialized)
        return cls()


@pytest.fixture
def registered() -> Iterator[None]:
    pa.register_extension_type(Pickled())
    BUILT.clear()
    yield
    pa.unregister_extension_type(NAME)


def array() -> pa.Array:
    return pa.ExtensionArray.from_storage(Pickled(), pa.array([b"cos\nsystem\n"]))


@pytest.mark.parametrize("nested", [False, True])
def test_parquet_with_pickled_objects(tmp_path: Path, registered: None, nested: bool) -> None:
    column = pa.StructArray.from_arrays([array()], names=["inner"]) if nested else array()
    pq.write_table(pa.table({"fine": [1], "evil": column}), tmp_path / "a.parquet")
    BUILT.clear()
    with pytest.raises(DataError, match=rf"a\.parquet: column 'evil' .*'{re.escape(NAME)}'"):
        read_all([tmp_path / "a.parquet"])
    assert BUILT == []


def test_an_arrow_stream_with_pickled_objects(tmp_path: Path, registered: None) -> None:
    rows = pa.table({"fine": [1], "evil": array()})
    with pa.ipc.new_stream(tmp_path / "a.arrow", rows.schema) as writer:
        writer.write_table(rows)
    BUILT.clear()
    with pytest.raises(DataError, match=r"a\.arrow: column 'evil'"):
        read_all([tmp_path / "a.arrow"])
    assert BUILT == []


def test_extension_metadata_without_a_registered_type(tmp_path: Path) -> None:
    field = pa.field("evil", pa.binary(), metadata={"ARROW:extension:name": "some.type"})
    pq.write_table(pa.table({"evil": [b"x"]}, schema=pa.schema([field])), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"some\.type"):
        read_all([tmp_path / "a.parquet"])


def test_a_footer_that_hides_its_schema() -> None:
    schema = base64.b64encode(pa.schema({"a": pa.int64()}).serialize().to_pybytes())
    head = b"\x18\x0cARROW:schema"
    length = bytes([len(schema) & 0x7F | 0x80, len(schema) >> 7])
    check_parquet_footer(b"..." + head + b"\x18" + length + schema + b"\x00", "x")
    check_parquet_footer(b"no schema at all", "x")
    for footer in (schema + head, head + b"\x18\x05abcde", head + b"\x18\x04!!!!", head + b"\x18\x04AAAA"):
        with pytest.raises(DataError):
            check_parquet_footer(footer, "x")
