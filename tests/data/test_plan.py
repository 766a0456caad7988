from __future__ import annotations

import gzip
import pickle
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.data.base import FileIndex, FileRef, ReadOptions
from hfray.data.formats import index_file, read_shard
from hfray.data.listing import list_files
from hfray.data.plan import IndexCache, Plan
from hfray.data.storage import Storage
from hfray.errors import SpecError


def index(url: str, num_rows: int, shard_rows: int = 10, schema: pa.Schema | None = None) -> FileIndex:
    num_shards = -(-num_rows // shard_rows)
    return FileIndex(
        FileRef(url, num_rows, "v", "jsonl"), shard_rows, num_rows, schema or pa.schema({"a": pa.int64()}), "d",
        offsets=np.arange(num_shards + 1, dtype=np.int64) * 100,
    )  # fmt: skip


def test_shards_cover_the_rows_in_order() -> None:
    plan = Plan([index("/x/a", 25), index("/x/empty", 0), index("/x/b", 10), index("/x/c", 1)])
    assert (plan.num_shards, plan.num_rows) == (5, 36)
    shards = [plan.shard(number) for number in range(5)]
    assert [(s.index, s.file.url, s.first_row, s.num_rows, s.first_position) for s in shards] == [
        (0, "/x/a", 0, 10, 0),
        (1, "/x/a", 10, 10, 10),
        (2, "/x/a", 20, 5, 20),
        (3, "/x/b", 0, 10, 25),
        (4, "/x/c", 0, 1, 35),
    ]
    assert [(s.start_byte, s.stop_byte) for s in shards[:3]] == [(0, 100), (100, 200), (200, 300)]
    assert str(shards[1]) == "rows 10 to 20 of /x/a"
    for number in (-1, 5):
        with pytest.raises(IndexError):
            plan.shard(number)


@pytest.mark.parametrize(
    ("limit", "counts"), [(0, []), (1, [1]), (10, [10]), (24, [10, 10, 4]), (27, [10, 10, 5, 2]), (99, [10, 10, 5, 10])]
)
def test_limit_counts_source_rows(limit: int, counts: list[int]) -> None:
    plan = Plan([index("/x/a", 25), index("/x/b", 10)], limit)
    assert [plan.shard(number).num_rows for number in range(plan.num_shards)] == counts
    assert plan.num_rows == sum(counts)


def test_a_million_shards_are_cheap() -> None:
    tracemalloc.start()
    plan = Plan([index(f"/x/{n}", 10_000_000, 100) for n in range(10)])
    numbers = np.random.default_rng(0).integers(0, plan.num_shards, 2000)
    started = time.perf_counter()
    for number in numbers:
        shard = plan.shard(int(number))
        assert shard.first_position == number * 100
    assert (time.perf_counter() - started) / 2000 < 2e-3
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()
    assert plan.num_shards == 1_000_000
    assert len(pickle.dumps(plan.shard(5))) < 1000


def test_pickles(tmp_path: Path) -> None:
    plan = pickle.loads(pickle.dumps(Plan([index("/x/a", 25)], 12)))  # noqa: S301
    assert (plan.num_rows, plan.shard(1).num_rows, plan.schema) == (12, 2, pa.schema({"a": pa.int64()}))


def test_files_of_one_schema(tmp_path: Path) -> None:
    first = index("/x/a", 1, schema=pa.schema({"a": pa.int64(), "b": pa.null()}))
    second = index("/x/b", 1, schema=pa.schema({"b": pa.string(), "a": pa.float64(), "c": pa.bool_()}))
    assert Plan([first, second]).schema == pa.schema({"a": pa.float64(), "b": pa.string(), "c": pa.bool_()})
    third = index("/x/c", 1, schema=pa.schema({"a": pa.string()}))
    with pytest.raises(SpecError, match="column 'a' is int64 in /x/a but string in /x/c"):
        Plan([first, third])
    with pytest.raises(SpecError, match="no input files"):
        Plan([])
    pq.write_table(pa.table({"n": pa.array([1, 2], pa.int32())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": [0.5], "more": ["x"]}), tmp_path / "b.parquet")
    plan = Plan([index_file(file, 10, "") for file in list_files([str(tmp_path)])])
    tables = [read_shard(plan.shard(number), plan.schema).table for number in range(2)]
    assert pa.concat_tables(tables).to_pylist() == [
        {"n": 1.0, "more": None}, {"n": 2.0, "more": None}, {"n": 0.5, "more": "x"},
    ]  # fmt: skip


def test_the_identity_is_of_contents_not_of_places_or_times(tmp_path: Path) -> None:
    def identity(folder: str, text: str) -> object:
        for name in ("a.jsonl", "deep/b.jsonl"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_text(text)
        files = list_files([str(tmp_path / folder)])
        return Plan([index_file(file, 10, "") for file in files]).input_identity()

    one = identity("one", '{"a": 1}\n')
    assert one == identity("two", '{"a": 1}\n')
    assert one != identity("three", '{"a": 2}\n')
    assert [file["path"] for file in one["files"]] == ["a.jsonl", "deep/b.jsonl"]  # type: ignore[index]


@pytest.mark.parametrize("where", ["local", "s3"])
@pytest.mark.slow
def test_the_cache_forgets_what_changed(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = Storage(str(tmp_path) if where == "local" else request.getfixturevalue("s3"))
    spool = root.url("work/spool")
    root.replace("a.jsonl.gz", gzip.compress(b'{"a": "x"}\n' * 50))
    (file,) = list_files([root.url("a.jsonl.gz")])
    cache = IndexCache(root, "work/index")
    assert cache.load(file, 7) is None
    made = index_file(file, 7, spool)
    cache.save(made)
    found = cache.load(file, 7)
    assert found is not None
    assert (found.file, found.num_rows, found.digest, found.spool) == (file, 50, made.digest, made.spool)
    assert found.schema == made.schema
    assert found.offsets.tolist() == made.offsets.tolist()
    assert read_shard(Plan([found]).shard(7), found.schema).table.to_pylist() == [{"a": "x"}]
    assert cache.load(file, 8) is None
    assert cache.load(file, 7, ReadOptions(";")) is None
    root.replace("a.jsonl.gz", gzip.compress(b'{"a": "y"}\n' * 50))
    (changed,) = list_files([root.url("a.jsonl.gz")])
    assert cache.load(changed, 7) is None
    for info in list(root.list("work/spool")):
        root.delete(info.path)
    assert cache.load(file, 7) is None


def test_a_damaged_cache_entry_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    (file,) = list_files([str(tmp_path / "a.txt")])
    cache = IndexCache(Storage(str(tmp_path)), "index")
    cache.save(index_file(file, 7, ""))
    (entry,) = (tmp_path / "index").iterdir()
    for content in (b"", b"nonsense", entry.read_bytes()[:200]):
        entry.write_bytes(content)
        assert cache.load(file, 7) is None
