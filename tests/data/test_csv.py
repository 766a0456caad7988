from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfray.data.base import ReadOptions
from hfray.errors import DataError, SpecError
from tests.data.reading import read_all


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("shard_rows", [1, 2, 100])
def test_quotes_newlines_and_a_byte_order_mark(tmp_path: Path, name: str, shard_rows: int) -> None:
    text = (
        '\ufeff"text",label, \r\n"two\nlines, ""quoted""",a,\r\n\r\n5" pipe,b,é\r\n"漢字\r\n\r\n🙂"tail,c,NUL\x00\r\n,,'
    )
    found = read_all([write(tmp_path / name, text)], shard_rows=shard_rows, spool=tmp_path / "spool")
    assert found.rows == [
        {"text": 'two\nlines, "quoted"', "label": "a", "column_2": ""},
        {"text": '5" pipe', "label": "b", "column_2": "é"},
        {"text": "漢字\r\n\r\n🙂tail", "label": "c", "column_2": "NUL\x00"},
        {"text": "", "label": "", "column_2": ""},
    ]
    assert found.errors == {}


@given(st.lists(st.tuples(*[st.text(st.characters(codec="utf-8"))] * 2), max_size=12), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_what_python_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], shard_rows: int
) -> None:
    sink = io.StringIO(newline="")
    csv.writer(sink).writerows([("a", "b"), *rows])
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    file.write_bytes(sink.getvalue().encode())
    found = read_all([file], shard_rows=shard_rows)
    assert [(row["a"], row["b"]) for row in found.rows] == rows


def test_bad_rows_keep_what_fits(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"a,b\n1,2\n1\n1,2,3\ncaf\xe9,4\n5,6\n")
    found = read_all([file], shard_rows=2)
    assert found.error_types == {1: "MalformedRow", 2: "MalformedRow", 3: "InvalidText"}
    assert found.table.to_pylist() == [
        {"a": "1", "b": "2"},
        {"a": "1", "b": None},
        {"a": "1", "b": "2"},
        {"a": "caf\ufffd", "b": "4"},
        {"a": "5", "b": "6"},
    ]
    assert found.errors[1].message == "1 fields where the header has 2"


def test_delimiters(tmp_path: Path) -> None:
    rows = [{"a": "1,5", "b": "x"}]
    assert read_all([write(tmp_path / "a.tsv", "a\tb\n1,5\tx\n")]).rows == rows
    semicolons = write(tmp_path / "a.csv", "a;b\n1,5;x\n")
    assert read_all([semicolons], options=ReadOptions(";")).rows == rows
    with pytest.raises(SpecError, match="delimiter"):
        read_all([semicolons], options=ReadOptions(";;"))


def test_headers_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv: is empty"):
        read_all([write(tmp_path / "a.csv", "\n")])
    with pytest.raises(DataError, match=r"b\.csv: the header has the column 'x' twice"):
        read_all([write(tmp_path / "b.csv", "x,y,x\n1,2,3\n")])
    assert read_all([write(tmp_path / "c.csv", "x,y\n")]).plan.num_rows == 0


def test_a_long_field(tmp_path: Path) -> None:
    text = "x" * 10_000_000
    assert read_all([write(tmp_path / "a.csv", f'a,b\n1,"{text}\n"\n')]).rows[0]["b"] == text + "\n"


def test_many_rows(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "n,text\n" + "".join(f'{n},"row\n{n}"\n' for n in range(100_000)))
    found = read_all([file], shard_rows=4096)
    assert found.table["n"].to_pylist() == [str(n) for n in range(100_000)]


def test_real_files(shared_data: Path) -> None:
    found = read_all([shared_data / "banking77" / "train.csv"], shard_rows=1000)
    assert found.table.num_rows == 10003
    assert found.errors == {}
    with open(shared_data / "banking77" / "train.csv", newline="", encoding="utf-8") as file:
        assert found.rows == list(csv.DictReader(file))
