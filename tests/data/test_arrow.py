from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from hfray.errors import DataError
from tests.data.reading import read_all


def write(path: Path, table: pa.Table, batch_rows: int) -> Path:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return path


@pytest.mark.parametrize("batch_rows", [1, 4, 10, 1000])
@pytest.mark.parametrize("shard_rows", [1, 3, 10, 1000])
def test_shards_start_inside_record_batches(tmp_path: Path, batch_rows: int, shard_rows: int) -> None:
    rows = pa.table({"n": range(35), "text": [f"row {n} 漢字" for n in range(35)]})
    found = read_all([write(tmp_path / "a.arrow", rows, batch_rows)], shard_rows=shard_rows)
    assert found.table.equals(rows)
    assert found.rows == rows.to_pylist()


def test_limit_ends_inside_a_batch(tmp_path: Path) -> None:
    rows = pa.table({"n": range(35)})
    found = read_all([write(tmp_path / "a.arrow", rows, 10)], shard_rows=8, limit=21)
    assert found.table["n"].to_pylist() == list(range(21))


def test_invalid_text(tmp_path: Path) -> None:
    raw = pa.array([b"a", b"\xff"])
    rows = pa.table({"t": pa.Array.from_buffers(pa.string(), 2, raw.buffers())})
    found = read_all([write(tmp_path / "a.arrow", rows, 10)])
    assert found.error_types == {1: "InvalidText"}
    assert found.table["t"].to_pylist() == ["a", "\ufffd"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.arrow", pa.table({"n": range(1000)}), 100)
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"a\.arrow: is truncated"):
        read_all([file])
    (tmp_path / "b.arrow").write_bytes(b"nonsense" * 10)
    with pytest.raises(DataError, match=r"b\.arrow"):
        read_all([tmp_path / "b.arrow"])
    with pa.ipc.new_file(tmp_path / "c.arrow", pa.schema({"a": pa.int64()})):
        pass
    with pytest.raises(DataError, match=r"c\.arrow: is an Arrow file"):
        read_all([tmp_path / "c.arrow"])
    write(tmp_path / "d.arrow", pa.table({"a": pa.array(["x"]).dictionary_encode()}), 1)
    with pytest.raises(DataError, match=r"d\.arrow: column 'a' is dictionary-encoded"):
        read_all([tmp_path / "d.arrow"])
