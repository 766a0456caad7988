"""Rows chosen by place, by lot and by condition: exactly those, with their positions, and counts of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.data.columns import Columns
from hfray.data.formats import index_file
from hfray.data.listing import list_files
from hfray.data.plan import Plan
from hfray.data.selection import RowReader, SelectedRows
from hfray.data.where import compile_where


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for number, rows in enumerate((95, 40, 120)):
        table = pa.table({"n": [1000 * number + row for row in range(rows)]})
        if number == 1:
            (tmp_path / "b.jsonl").write_text("")
        pq.write_table(table, tmp_path / f"{number}.parquet")
    (tmp_path / "b.jsonl").unlink()
    return tmp_path


def read(
    folder: Path, *, where: str | None = None, sample: float | None = None, seed: int = 0, **how: Any
) -> list[SelectedRows]:
    plan = Plan([index_file(file, 10, "") for file in list_files([str(folder)])], **how)
    condition = None if where is None else compile_where(where)
    reader = RowReader(plan, Columns({}, plan.schema), where=condition, sample=sample, seed=seed)
    return [reader.read(plan.shard(number), ["n"]) for number in range(plan.num_shards)]


def numbers(shards: list[SelectedRows]) -> list[int]:
    return [row["n"] for shard in shards for row in shard.rows]


ALL = [1000 * number + row for number, rows in enumerate((95, 40, 120)) for row in range(rows)]


@pytest.mark.parametrize(
    ("select", "limit", "expected"),
    [
        (None, None, ALL),
        ("50:", None, ALL[50:]),
        ("90:140", None, ALL[90:140]),
        ("-30:", None, ALL[-30:]),
        ("10%:20%", None, ALL[26:51]),
        ("90:140", 7, ALL[90:97]),
        (":-250", None, ALL[:5]),
        ("300:", None, []),
        (None, 100, ALL[:100]),
    ],
)
def test_ranges_are_slices_of_all_files(
    files: Path, select: str | None, limit: int | None, expected: list[int]
) -> None:
    shards = read(files, select=select, limit=limit)
    assert numbers(shards) == expected
    assert [position for shard in shards for position in shard.positions] == list(range(len(expected)))


def test_ranges_enter_files_of_records_too(tmp_path: Path) -> None:
    lines = [f'{{"n": {row}}}\n' for row in range(101)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    assert numbers(read(tmp_path, select="13:77")) == list(range(13, 77))


@pytest.mark.parametrize(("sample", "size"), [(50, 50), (0.2, 51), (1000, 255)])
def test_a_sample_has_its_exact_size(files: Path, sample: float, size: int) -> None:
    shards = read(files, sample=sample, seed=3)
    found = numbers(shards)
    assert len(found) == size
    assert found == sorted(set(found))
    assert sum(shard.left_out["sample"] for shard in shards) == 255 - size
    assert [ALL[position] for shard in shards for position in shard.positions] == found
    assert found == numbers(read(files, sample=sample, seed=3))
    if size < 255:
        assert found != numbers(read(files, sample=sample, seed=4))


def test_a_sample_is_drawn_before_the_condition(files: Path) -> None:
    both = read(files, sample=100, where="n >= 1000")
    assert numbers(both) == [number for number in numbers(read(files, sample=100)) if number >= 1000]
    assert sum(shard.left_out["sample"] for shard in both) == 155
    assert sum(shard.left_out["where"] for shard in both) == 100 - len(numbers(both))
