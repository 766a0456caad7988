"""Blocks of parts: where they begin, what they weigh, and a spool that several processes share."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.data import token_parts
from hfray.data.storage import Storage
from hfray.errors import DataError
from hfray.training.blocks import Spool, block_of, open_part
from tests.training.support import PLAIN, plain_rows, write_tokens

ROWS = plain_rows(20)
TABLE = pa.Table.from_pylist(ROWS, PLAIN)


@pytest.mark.parametrize(("format", "mapped"), [("parquet", False), ("arrow", True)])
def test_blocks_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, mapped: bool) -> None:
    monkeypatch.setattr(token_parts, "ROW_GROUP_ROWS", 8)
    monkeypatch.setattr(token_parts, "BATCH_ROWS", 8)
    path = write_tokens(str(tmp_path), {"train": [ROWS]}, format=format)
    (name,) = (file.name for file in (tmp_path / "data" / "train").iterdir())
    with closing(open_part(Storage(path), f"data/train/{name}", ["labels"])) as part:
        assert part.starts == [0, 8, 16, 20]
        assert part.mapped is mapped
        assert part.read(2).to_pylist() == [{"labels": number} for number in range(16, 20)]


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_the_largest_value_of_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setattr(token_parts, "ROW_GROUP_ROWS", 8)
    path = write_tokens(str(tmp_path), {"train": [ROWS], "dev": [ROWS[:3]], "none": [[]]}, format=format)
    for split, largest in (("train", 19), ("dev", 2), ("none", -1)):
        (name,) = (file.name for file in (tmp_path / "data" / split).iterdir())
        with closing(open_part(Storage(path), f"data/{split}/{name}", ["labels"])) as part:
            if format == "parquet":  # the footer tells
                monkeypatch.setattr(part, "read", None)
            assert part.largest("labels") == largest


def test_a_footer_that_tells_nothing_is_helped(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "part.parquet", write_statistics=False)
    with closing(open_part(Storage(str(tmp_path)), "part.parquet", ["labels"])) as part:
        assert part.largest("labels") == 19


def test_a_block_weighs_what_it_takes() -> None:
    assert block_of(TABLE, mapped=False).num_bytes == TABLE.nbytes
    assert block_of(TABLE, mapped=True).num_bytes == 1 << 16


def test_a_spool_gives_what_was_put(tmp_path: Path) -> None:
    spool, other = Spool(tmp_path / "a" / "b"), Spool(tmp_path / "a" / "b")
    assert spool.get("0") is None
    spool.put("0", pa.concat_tables([TABLE.slice(0, 7), TABLE.slice(7)]))
    other.put("0", TABLE)
    block = other.get("0")
    assert block is not None
    ids: Any = block.columns["input_ids"]
    assert [ids[row].tolist() for row in range(20)] == [row["input_ids"] for row in ROWS]
    assert [file.name for file in (tmp_path / "a" / "b").iterdir()] == ["0.arrow"]


def test_what_cannot_be_spooled_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    spool = Spool(tmp_path)
    monkeypatch.setattr("hfray.training.blocks.os.replace", full)
    with pytest.raises(DataError, match="no space left"):
        spool.put("0", TABLE)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_spool_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.arrow").write_bytes(b"x" * 50)
    with pytest.raises(DataError, match=r"0\.arrow: is not a whole part"):
        Spool(tmp_path).get("0")


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"part-0\.jsonl: .*kept as parquet and arrow, not as jsonl"):
        open_part(Storage(str(tmp_path)), "data/part-0.jsonl", [])
