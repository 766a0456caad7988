"""Rows that occur twice, told by 128-bit hashes of their content. Knows hashes and positions; not rows.

Each shard leaves a file of its rows' hashes, sorted; the first row of the input with a hash stays. A pass looks at as
many of the possible hashes as fit in memory, so that a hundred million rows need no more of it than four million.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from hfray.data.ledger import DRAFTS
from hfray.data.storage import Storage
from hfray.errors import DataError
from hfray.types import Array

HASHES = f"{DRAFTS}/hashes"
ROWS_AT_ONCE = 4_000_000
FENCES = 256
_ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("position", "<i8")])
_HEAD_BYTES = (FENCES + 1) * 8


def hashes_path(shard: int) -> str:
    """Of a shard's file, from the output's root."""
    return f"{HASHES}/{shard:08d}.bin"


def encode_hashes(hashes: Sequence[int], positions: Sequence[int]) -> bytes:
    """A shard's file: 257 fences, the first row of each leading byte, then the rows in the order of their hashes."""
    rows = np.empty(len(hashes), _ROW)
    rows["high"] = [each >> 64 for each in hashes]
    rows["low"] = [each & (2**64 - 1) for each in hashes]
    rows["position"] = positions
    rows = np.sort(rows, order=("high", "low", "position"))
    fences = np.searchsorted(rows["high"] >> np.uint64(56), np.arange(FENCES + 1, dtype=np.uint64)).astype("<u8")
    return fences.tobytes() + rows.tobytes()


def find_duplicates(storage: Storage, shards: Sequence[int], num_rows: int) -> Array:
    """int64 [num_duplicates], ascending: positions of all rows that equal an earlier one. num_rows: about how many
    there are. Raises DataError for a damaged file."""
    passes = min(FENCES, max(1, -(-num_rows // ROWS_AT_ONCE)))
    edges = [FENCES * each // passes for each in range(passes + 1)]
    found = [
        _later_ones(np.concatenate([np.empty(0, _ROW), *_rows(storage, shards, start, stop)]))
        for start, stop in pairwise(edges)
    ]
    return np.sort(np.concatenate(found))


def _rows(storage: Storage, shards: Sequence[int], start: int, stop: int) -> Iterator[Array]:
    """The rows of each shard between two fences."""
    for shard in shards:
        path = hashes_path(shard)
        head = storage.read_range(path, 0, _HEAD_BYTES)
        if len(head) != _HEAD_BYTES:
            raise DataError(f"{storage.url(path)}: is damaged: use --restart")
        fences = np.frombuffer(head, "<u8")
        first, last = int(fences[start]), int(fences[stop])
        if last > first:
            size = _ROW.itemsize
            data = storage.read_range(path, _HEAD_BYTES + first * size, _HEAD_BYTES + last * size)
            yield np.frombuffer(data, _ROW)


def _later_ones(rows: Array) -> Array:
    rows = np.sort(rows, order=("high", "low", "position"))
    same = (rows["high"][1:] == rows["high"][:-1]) & (rows["low"][1:] == rows["low"][:-1])
    return np.asarray(rows["position"][1:][same], np.int64)
