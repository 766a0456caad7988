from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import pytest

from hfray.data.formats import index_file, read_shard
from hfray.data.listing import list_files
from hfray.errors import DataError


def test_a_compressed_file_is_read_once_and_shards_come_from_the_spool(tmp_path: Path) -> None:
    source = tmp_path / "a.txt.gz"
    source.write_bytes(gzip.compress(b"".join(b"line %d\n" % n for n in range(100))))
    (file,) = list_files([str(source)])
    index = index_file(file, 10, str(tmp_path / "spool"))
    (spooled,) = (tmp_path / "spool").iterdir()
    assert index.spool == str(spooled)
    assert spooled.read_bytes() == gzip.decompress(source.read_bytes())
    source.unlink()
    shard = index.slice(40, 10)
    assert (shard.start_byte, shard.stop_byte) == (int(index.offsets[4]), int(index.offsets[5]))
    assert read_shard(shard, index.schema).table["text"].to_pylist() == [f"line {n}" for n in range(40, 50)]


@pytest.mark.parametrize(("first_row", "num_rows"), [(0, 0), (0, 1), (3, 9), (12, 3), (9, 1), (5, 10)])
def test_any_range_can_be_read_not_only_shards(tmp_path: Path, first_row: int, num_rows: int) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"line {n}" for n in range(15)))
    (file,) = list_files([str(tmp_path)])
    index = index_file(file, 4, "")
    rows = read_shard(index.slice(first_row, num_rows), index.schema)
    assert rows.table["text"].to_pylist() == [f"line {n}" for n in range(first_row, first_row + num_rows)]


def test_an_index_that_does_not_fit_the_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (file,) = list_files([str(tmp_path)])
    shard = index_file(file, 4, "").slice(0, 2)
    with pytest.raises(DataError, match="expected 3 rows from row 0, found 2"):
        read_shard(dataclasses.replace(shard, num_rows=3), index_file(file, 4, "").schema)
