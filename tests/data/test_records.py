from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfray.data import records
from hfray.data.records import csv_records, lines
from hfray.errors import DataError

# Many quotes, delimiters and line ends, some other text.
CSV_TEXT = st.text(alphabet='",\r\n\na "é\x00;', max_size=60)


class Dribble(io.BytesIO):
    """Gives a few bytes at a time, so that every boundary falls somewhere."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(3, size) if size and size > 0 else size)


def python_rows(text: str, delimiter: str = ",") -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]


def scanned_rows(data: bytes, stream: io.BytesIO, delimiter: str = ",") -> list[list[str]]:
    found = []
    for start, stop, record in csv_records(delimiter)(stream, "x", 0):
        assert data[start:stop].startswith(record)
        found.append(next(csv.reader([record.decode()], delimiter=delimiter)))
    return found


@given(CSV_TEXT)
@settings(max_examples=400, deadline=None)
def test_csv_records_are_those_of_pythons_csv(text: str) -> None:
    data = text.encode()
    assert scanned_rows(data, io.BytesIO(data)) == python_rows(text)
    assert scanned_rows(data, Dribble(data)) == python_rows(text)


@given(CSV_TEXT)
@settings(max_examples=200, deadline=None)
def test_another_delimiter(text: str) -> None:
    assert scanned_rows(text.encode(), Dribble(text.encode()), ";") == python_rows(text, ";")


@given(st.lists(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), min_size=2, max_size=3)))
@settings(max_examples=200, deadline=None)
def test_a_csv_can_be_entered_at_every_record(rows: list[list[str]]) -> None:
    sink = io.StringIO(newline="")
    csv.writer(sink).writerows(rows)
    data = sink.getvalue().encode()
    spans = list(csv_records(",")(io.BytesIO(data), "x", 0))
    assert len(spans) == len(rows)
    for number, (start, _, _) in enumerate(spans):
        rest = [record for _, _, record in csv_records(",")(io.BytesIO(data[start:]), "x", start)]
        assert [next(csv.reader([record.decode()])) for record in rest] == rows[number:]


@given(st.text(alphabet="ab\n\n\r é\u2028\ufeff", max_size=60))
@settings(max_examples=200, deadline=None)
def test_lines(text: str) -> None:
    data = text.encode()
    wanted = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n") if line.strip(" \t\r\n")]
    for stream in (io.BytesIO(data), Dribble(data)):
        found = list(lines(stream, "x", 0))
        assert [record.decode() for _, _, record in found] == wanted
        for start, stop, record in found:
            assert data[start:stop].rstrip(b"\r\n") == record


def test_a_record_without_end_is_an_error_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1 << 10)
    monkeypatch.setattr(records, "CHUNK_BYTES", 1 << 8)
    with pytest.raises(DataError, match=r"data\.csv: the record at byte 4 .* quote left open"):
        list(csv_records(",")(io.BytesIO(b'a,b\n"' + b"x\n" * 4000), "data.csv", 0))
    with pytest.raises(DataError, match=r"data\.jsonl: the record at byte 3"):
        list(lines(io.BytesIO(b"ab\n" + b"x" * 8000), "data.jsonl", 0))


def test_utf16_is_said() -> None:
    with pytest.raises(DataError, match="UTF-16"):
        list(lines(io.BytesIO("text\n".encode("utf-16")), "data.txt", 0))
