"""Drafts: the examples of one source shard, before they are in the parts of the output they belong to.

An Arrow file of one record batch for each segment, a group of parts of one split; a part reads its segment of every
draft. Knows Arrow and the ledger's folder; not what an example is.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from hfray.data.layout import Layout
from hfray.data.ledger import DRAFTS, Ledger
from hfray.data.storage import Storage
from hfray.data.token_parts import FACTS
from hfray.errors import DataError
from hfray.types import Array

RANK, POSITION, PART = "_rank", "_position", "_part"
"""Columns beside the examples': the row's place in its split, its position in the input, its part within the split."""

_SEGMENTS = b"segments"
LAYOUT = Layout(f"{DRAFTS}/parts", "arrow")


def draft_ledger(output: Ledger) -> Ledger:
    """The first phase's ledger over the same folder."""
    return Ledger(output.url, "arrow", output.fingerprint, layout=LAYOUT, receipts=f"{DRAFTS}/receipts")


def encode_draft(table: pa.Table, splits: Array, groups: Array, facts: Mapping[str, Any]) -> bytes:
    """splits, groups: int64 [num_rows], the segment of each row; rows keep their order within a segment."""
    order = np.lexsort((np.arange(len(groups)), groups, splits))
    keys = np.stack([splits[order], groups[order]], axis=1)
    changes = np.flatnonzero(np.any(keys[1:] != keys[:-1], axis=1)) + 1 if len(keys) else np.zeros(0, np.int64)
    edges = [0, *changes.tolist(), len(keys)]
    names = [f"{keys[start][0]}:{keys[start][1]}" for start in edges[:-1] if start < len(keys)]
    meta = {FACTS: json.dumps(facts, separators=(",", ":")).encode(), _SEGMENTS: json.dumps(names).encode()}
    table = table.take(pa.array(order)).combine_chunks().replace_schema_metadata(meta)
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        for start, stop in pairwise(edges):
            if stop > start:
                writer.write_table(table.slice(start, stop - start))
    return sink.getvalue()


def draft_facts(data: bytes, name: str) -> dict[str, Any]:
    """What `encode_draft` was told. Raises DataError for a damaged file."""
    try:
        with pa.ipc.open_file(pa.BufferReader(data)) as reader:
            found: dict[str, Any] = json.loads(reader.schema.metadata[FACTS])
            return found
    except (ValueError, KeyError, TypeError, OSError, pa.ArrowException) as error:
        raise DataError(f"{name} is damaged ({error}): delete it and run the same command again") from None


def read_segment(storage: Storage, shard: int, split: int, group: int) -> pa.Table | None:
    """One segment of a shard's draft, None if the shard has none. Raises DataError for a damaged file."""
    path = LAYOUT.path(shard)
    with storage.open(path) as file, _reading(storage.url(path)), pa.ipc.open_file(file) as reader:
        names = json.loads(reader.schema.metadata[_SEGMENTS])
        key = f"{split}:{group}"
        if key not in names:
            return None
        batch = reader.get_batch(names.index(key))
        return pa.Table.from_batches([batch]).replace_schema_metadata(None)


@contextmanager
def _reading(url: str) -> Any:
    try:
        yield
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{url}: is damaged ({error}): delete it and run the same command again") from None
