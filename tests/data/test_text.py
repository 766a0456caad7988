from __future__ import annotations

import gzip
from pathlib import Path

from tests.data.reading import read_all


def test_one_row_per_line_that_is_not_blank(tmp_path: Path) -> None:
    data = "\ufefffirst\r\n\n  \n漢字 🙂\u2028same line\n".encode() + b"caf\xe9\nNUL\x00\n last "
    (tmp_path / "a.txt").write_bytes(data)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(data))
    rows = ["first", "漢字 🙂\u2028same line", "caf\ufffd", "NUL\x00", " last "]
    found = read_all([tmp_path], shard_rows=2, spool=tmp_path / "_spool")
    assert [row["text"] for row in found.rows] == rows * 2
    assert found.error_types == {2: "InvalidText", 7: "InvalidText"}


def test_real_file(shared_data: Path) -> None:
    file = shared_data / "tinyshakespeare" / "input.txt"
    found = read_all([file], shard_rows=4096)
    assert [row["text"] for row in found.rows] == [line for line in file.read_text().split("\n") if line.strip()]


def test_any_file_can_be_read_as_text_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "raw.log").write_text("a\nb\n")
    assert [row["text"] for row in read_all([tmp_path / "raw.log"], "text").rows] == ["a", "b"]
