from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.data import parquet
from hfray.data.formats import index_file, read_shard
from hfray.data.listing import list_files
from hfray.data.plan import Plan
from hfray.errors import DataError
from tests.data.reading import read_all


@pytest.fixture(autouse=True)
def no_open_readers() -> Iterator[None]:
    yield
    parquet.close_readers()


def table(num_rows: int) -> pa.Table:
    return pa.table(
        {
            "n": range(num_rows),
            "text": [f"row {n} 漢字" if n % 5 else None for n in range(num_rows)],
            "chat": [[{"role": "user", "content": str(n)}] for n in range(num_rows)],
        }
    )


@pytest.mark.parametrize("row_group_rows", [1, 7, 64, 10_000])
@pytest.mark.parametrize("shard_rows", [5, 64, 1000])
def test_slices_of_row_groups(tmp_path: Path, row_group_rows: int, shard_rows: int) -> None:
    rows = table(300)
    pq.write_table(rows, tmp_path / "a.parquet", row_group_size=row_group_rows)
    pq.write_table(rows.slice(0, 0), tmp_path / "b.parquet")
    pq.write_table(rows, tmp_path / "c.parquet", row_group_size=row_group_rows)
    found = read_all([tmp_path], shard_rows=shard_rows)
    assert found.table.to_pylist() == rows.to_pylist() * 2
    assert found.rows == rows.to_pylist() * 2


def test_shards_in_any_order_from_several_threads(tmp_path: Path) -> None:
    rows = table(5000)
    pq.write_table(rows, tmp_path / "a.parquet", row_group_size=1700)
    plan = Plan([index_file(list_files([str(tmp_path)])[0], 130, "")])
    numbers = [*range(plan.num_shards)] * 2
    random.Random(0).shuffle(numbers)
    failures: list[int] = []

    def work(mine: list[int]) -> None:
        for number in mine:
            shard = plan.shard(number)
            if not read_shard(shard, plan.schema).table.equals(rows.slice(shard.first_row, shard.num_rows)):
                failures.append(number)

    threads = [threading.Thread(target=work, args=(numbers[k::4],)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_consecutive_shards_decode_a_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(table(10_000), tmp_path / "a.parquet")
    entered: list[range] = []
    real = parquet._Cursor._iterate

    def counting(self: parquet._Cursor, groups: range) -> Iterator[pa.RecordBatch]:
        entered.append(groups)
        return real(self, groups)

    monkeypatch.setattr(parquet._Cursor, "_iterate", counting)
    read_all([tmp_path / "a.parquet"], shard_rows=100)
    assert entered == [range(1)]


def test_invalid_text_is_found_row_by_row_and_repaired(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"caf\xe9", None, b"\xed\xa0\x80", b"NUL\x00", b"end"])
    text = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    values = pa.Array.from_buffers(pa.string(), 6, pa.array([b"a", b"b", b"\xff", b"d", b"e", b"f"]).buffers())
    nested = pa.StructArray.from_arrays(
        [pa.ListArray.from_arrays(pa.array([0, 1, 2, 3, 4, 5, 6], pa.int32()), values)], names=["list"]
    )
    pq.write_table(pa.table({"n": range(6), "text": text, "nested": nested}), tmp_path / "a.parquet")
    found = read_all([tmp_path / "a.parquet"], shard_rows=4)
    assert found.error_types == {1: "InvalidText", 2: "InvalidText", 3: "InvalidText"}
    assert "'text'" in found.errors[1].message
    assert "'nested'" in found.errors[2].message
    assert found.table["text"].to_pylist() == ["good", "caf\ufffd", None, "\ufffd\ufffd\ufffd", "NUL\x00", "end"]
    assert found.table["nested"][2].as_py() == {"list": ["\ufffd"]}


@pytest.mark.parametrize("kept_bytes", [0, 3, 11, 500, -1, -9])
def test_a_truncated_file_is_named(tmp_path: Path, kept_bytes: int) -> None:
    pq.write_table(table(100), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:kept_bytes])
    with pytest.raises(DataError, match=r"a\.parquet: is truncated or not Parquet"):
        read_all([tmp_path / "a.parquet"])


def test_damage_inside_a_file_is_named(tmp_path: Path) -> None:
    pq.write_table(table(1000), tmp_path / "a.parquet", compression="zstd")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[4:400] = bytes(396)
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet: damaged Parquet"):
        read_all([tmp_path / "a.parquet"])


def test_dictionary_columns_are_read_as_their_values(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array(["x", "y", "x"]).dictionary_encode()}), tmp_path / "a.parquet")
    found = read_all([tmp_path / "a.parquet"])
    assert found.plan.schema == pa.schema({"a": pa.string()})
    assert found.rows == [{"a": "x"}, {"a": "y"}, {"a": "x"}]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="'a' twice"):
        read_all([tmp_path / "a.parquet"])


def test_many_rows_and_the_digest(tmp_path: Path) -> None:
    rows = pa.table({"n": range(100_000), "text": [f"row {n}" for n in range(100_000)]})
    pq.write_table(rows, tmp_path / "a.parquet")
    pq.write_table(rows, tmp_path / "b.parquet")
    pq.write_table(rows.slice(1), tmp_path / "c.parquet")
    found = read_all([tmp_path], shard_rows=4096, limit=100_000)
    assert found.table.equals(rows)
    digests = [index.digest for index in found.indexes]
    assert digests[0] == digests[1] != digests[2]


def test_parquet_on_an_object_store(s3: str) -> None:
    from hfray.data.storage import Storage

    rows = table(2000)
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, row_group_size=300)
    Storage(s3).replace("in/deep/a.parquet", sink.getvalue().to_pybytes())
    found = read_all([s3 + "/in"], shard_rows=450)
    assert found.table.to_pylist() == rows.to_pylist()
