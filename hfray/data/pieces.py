"""A shard of few rows can be gigabytes of text: its rows in pieces that fit in memory. Knows bytes and rows of files;
not what is in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hfray.data.base import Shard
from hfray.data.formats import record_scanner
from hfray.data.records import Scanner
from hfray.data.storage import storage_for

PIECE_BYTES = 32 << 20
"""Of the source; a single row may be more."""
EXPANSION = 4  # a compressed column's bytes in memory over those in the file


def pieces(shard: Shard, rows_in_file: int) -> Iterator[Shard]:
    """The shard itself, or slices of it in order that hold about PIECE_BYTES each. rows_in_file: of its file.

    Where the bytes of a row are not known before it is read, all rows of a file count alike.
    """
    scanner = record_scanner(shard)
    if scanner is None:
        num_bytes = EXPANSION * shard.file.size_bytes * shard.num_rows // max(1, rows_in_file)
        yield from _equal(shard, max(1, shard.num_rows * PIECE_BYTES // max(1, num_bytes)))
    elif shard.stop_byte - shard.start_byte <= PIECE_BYTES:
        yield shard
    else:
        yield from _by_bytes(shard, scanner)


def _equal(shard: Shard, num_rows: int) -> Iterator[Shard]:
    for first in range(0, shard.num_rows, num_rows):
        yield replace(
            shard,
            first_row=shard.first_row + first,
            first_position=shard.first_position + first,
            skip_rows=shard.skip_rows + first,
            num_rows=min(num_rows, shard.num_rows - first),
        )


def _by_bytes(shard: Shard, scanner: Scanner) -> Iterator[Shard]:
    """One pass over the records, none of which is kept."""
    storage, path = storage_for(shard.spool or shard.file.url)
    first = num_rows = 0
    start_byte = stop_byte = shard.start_byte

    def piece() -> Shard:
        return replace(
            shard,
            first_row=shard.first_row + first,
            first_position=shard.first_position + first,
            num_rows=num_rows,
            start_byte=start_byte,
            stop_byte=stop_byte,
            skip_rows=0,
        )

    with storage.open(path) as file:
        file.seek(shard.start_byte)
        for number, (start, stop, _) in enumerate(scanner(file, shard.file.url, shard.start_byte)):
            if number < shard.skip_rows:
                continue
            if num_rows and stop - start_byte > PIECE_BYTES:
                yield piece()
                first, num_rows = first + num_rows, 0
            if not num_rows:
                start_byte = start
            num_rows, stop_byte = num_rows + 1, stop
            if first + num_rows == shard.num_rows:
                break
    if num_rows:
        yield piece()
