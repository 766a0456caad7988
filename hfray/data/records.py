"""Where records begin and end in a byte stream: lines, and CSV records with quoted newlines.

Knows bytes; not what a record means. Both scanners yield `(start, stop, record)`: the record's bytes without its
line end, and its byte range in the file with it. Blank lines are no records.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Protocol

from hfray.errors import DataError

Record = tuple[int, int, bytes]

CHUNK_BYTES = 4 << 20
MAX_RECORD_BYTES = 256 << 20
"""A longer line or CSV record is an error of the file: memory must stay bounded."""

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


Scanner = Callable[[Readable, str, int], Iterator[Record]]
"""(stream, the file's name for errors, the byte position of the stream's first byte) -> records."""


def lines(stream: Readable, name: str, base: int = 0) -> Iterator[Record]:
    """Lines that end in LF or CRLF and hold more than white space."""
    start, rest = base, b""
    for chunk in _chunks(stream, name, base):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            stop = start + len(line) + 1
            if stripped := line.rstrip(b"\r"):
                skip = len(_BOM) if start == 0 and stripped.startswith(_BOM) else 0
                if stripped[skip:].strip(_BLANK):
                    yield start + skip, stop, stripped[skip:]
            start = stop
        if len(rest) > MAX_RECORD_BYTES:
            raise _too_long(name, start, "is it really made of lines?")
    stripped = rest.rstrip(b"\r")
    skip = len(_BOM) if start == 0 and stripped.startswith(_BOM) else 0
    if stripped[skip:].strip(_BLANK):
        yield start + skip, start + len(rest), stripped[skip:]


def csv_records(delimiter: str) -> Scanner:
    """A scanner for records as Python's `csv` module sees them with its default dialect (RFC 4180, but lenient).

    A quote opens a quoted field only at the start of a field; inside, `""` is a quote, and line ends and delimiters
    are text; after the closing quote anything up to the delimiter belongs to the field. LF, CRLF and CR end a record.
    """
    pattern = _csv_pattern(delimiter.encode())

    def scan(stream: Readable, name: str, base: int = 0) -> Iterator[Record]:
        start, buffer, position = base, b"", 0
        wanted = 0
        for chunk in _chunks(stream, name, base, final=True):
            buffer, position = buffer[position:] + chunk, 0
            if chunk and len(buffer) < wanted:
                continue
            if start == 0 and buffer.startswith(_BOM):
                start = position = len(_BOM)
            at_end = not chunk
            while position < len(buffer):
                match = pattern.match(buffer, position)
                # A record that touches the end of the buffer may go on: its line end may be the half of a CRLF.
                if match is None or match.end() == len(buffer):
                    if not at_end:
                        break
                    body, stop = (match[1], match.end()) if match else (buffer[position:], len(buffer))
                else:
                    body, stop = match[1], match.end()
                if body:
                    yield start, start + stop - position, body
                start += stop - position
                position = stop
            # A long record is tried again only once the buffer has doubled.
            wanted = 2 * (len(buffer) - position)
            if wanted > 2 * MAX_RECORD_BYTES:
                raise _too_long(name, start, "is a quote left open there?")

    return scan


@lru_cache
def _csv_pattern(delimiter: bytes) -> re.Pattern[bytes]:
    other = b"[^" + re.escape(delimiter) + b"\\r\\n]*+"
    quoted = b'"(?:[^"]++|"")*+"' + other
    field = b"(?:" + quoted + b'|(?!")' + other + b")"
    record = b"(?:" + field + b"(?:" + re.escape(delimiter) + field + b")*+)"
    end = b"(?:\\r\\n|\\n|\\r|\\Z)"
    # The first branch takes a record without any quote at the speed of one character class.
    return re.compile(b'([^"\\r\\n]*+(?=[\\r\\n]|\\Z)|' + record + b")" + end)


def _chunks(stream: Readable, name: str, base: int, final: bool = False) -> Iterator[bytes]:
    """The stream in pieces; with `final` an empty one at the end."""
    first = base == 0
    while chunk := stream.read(CHUNK_BYTES):
        if first and chunk.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{name}: is UTF-16, not UTF-8: convert it (iconv -f UTF-16 -t UTF-8)")
        first = False
        yield chunk
    if final:
        yield b""


def _too_long(name: str, start: int, question: str) -> DataError:
    return DataError(f"{name}: the record at byte {start:,} is over {MAX_RECORD_BYTES >> 20} MiB: {question}")
