"""A shard in pieces: the same rows in the same order at the same places, however small the pieces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.data import pieces as cutting
from hfray.data.columns import Columns
from hfray.data.formats import index_file
from hfray.data.listing import list_files
from hfray.data.pieces import pieces
from hfray.data.plan import Plan
from hfray.data.selection import RowReader
from hfray.data.where import compile_where

NUM_ROWS = 57
TEXTS = [f"{number} " + "word " * (number % 11 * 9) for number in range(NUM_ROWS)]


def jsonl(folder: Path) -> None:
    lines = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    (folder / "in.jsonl").write_text("\n".join(lines))  # with blank lines between


def csv(folder: Path) -> None:
    (folder / "in.csv").write_text("text\n" + "".join('"' + text.replace(" ", "\n") + '"\n' for text in TEXTS))


def text(folder: Path) -> None:
    (folder / "in.txt").write_text("".join(text + "\n" for text in TEXTS))


def parquet(folder: Path) -> None:
    pq.write_table(pa.table({"text": TEXTS}), folder / "in.parquet", row_group_size=13)


def saved(folder: Path) -> None:
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(folder)


WRITERS: list[Callable[[Path], None]] = [jsonl, csv, text, parquet, saved]


@pytest.mark.parametrize("write", WRITERS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("piece_bytes", [1, 300, 1200])
@pytest.mark.parametrize("select", [None, "5:50"])
def test_pieces_are_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], piece_bytes: int, select: str | None
) -> None:
    write(tmp_path)
    files = list_files([str(tmp_path)])
    plan = Plan([index_file(file, 20, str(tmp_path / "spool")) for file in files], select=select)
    reader = RowReader(plan, Columns({}, plan.schema), where=compile_where("length(text) > 4"))
    monkeypatch.setattr(cutting, "PIECE_BYTES", piece_bytes)
    num_pieces = 0
    for number in range(plan.num_shards):
        shard = plan.shard(number)
        whole = reader.read(shard, ["text"])
        parts = list(reader.read_pieces(shard, ["text"]))
        assert [row for part in parts for row in part.rows] == whole.rows
        assert [position for part in parts for position in part.positions] == whole.positions
        assert pa.concat_tables([part.table for part in parts]).equals(whole.table)
        assert sum(part.left_out["where"] for part in parts) == whole.left_out["where"]
        num_pieces += len(list(pieces(shard, NUM_ROWS)))
    if piece_bytes < 1200:
        assert num_pieces > plan.num_shards
    if piece_bytes == 1:
        assert num_pieces == plan.num_rows


def test_a_shard_that_fits_is_left_whole(tmp_path: Path) -> None:
    jsonl(tmp_path)
    plan = Plan([index_file(file, 20, "") for file in list_files([str(tmp_path)])])
    assert list(pieces(plan.shard(1), NUM_ROWS)) == [plan.shard(1)]


def test_an_empty_shard_has_a_piece_without_rows(tmp_path: Path) -> None:
    parquet(tmp_path)
    plan = Plan([index_file(file, 20, "") for file in list_files([str(tmp_path)])])
    empty = plan.indexes[0].slice(0, 0)
    (rows,) = RowReader(plan, Columns({}, plan.schema)).read_pieces(empty, ["text"])
    assert rows.rows == []
