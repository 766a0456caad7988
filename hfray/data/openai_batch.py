"""Files of OpenAI's Batch API: JSON Lines of `custom_id`, `method`, `url` and `body`. Knows lines and JSON; not what a
body asks for, not what answers look like.

The output keeps a body as JSON text, the task sees it parsed. A line that is no JSON object fails alone, under its
`custom_id` if that can still be read. Two lines with the same `custom_id` make the file unusable, as they do for
OpenAI: their answers could not be told apart.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import pyarrow as pa

from hfray.data.base import FileIndex, FileRef, ReadOptions, Shard, ShardRows
from hfray.data.json_types import json_array
from hfray.data.jsonl import parse
from hfray.data.records import lines
from hfray.data.scan import index_records, read_records
from hfray.errors import DataError, RowError

SCHEMA = pa.schema([(name, pa.string()) for name in ("custom_id", "method", "url", "body")])
_CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*("(?:[^"\\]|\\.)*")')


def index(file: FileRef, shard_rows: int, spool_dir: str, options: ReadOptions) -> FileIndex:
    """Reads every line's `custom_id`. Raises DataError for one that is there twice."""
    known: dict[bytes, int] = {}
    number = 0

    def visit(record: bytes) -> bool:
        nonlocal number
        number += 1
        name = _row(record)[0].get("custom_id")
        if name is not None:
            if not isinstance(name, str):
                (name,) = json_array([name], pa.string()).to_pylist()  # as it stands in the answer
            digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
            if (first := known.setdefault(digest, number)) != number:
                raise DataError(
                    f"{file.url}: custom_id {name!r:.80} is in the requests {first:,} and {number:,}, whose answers "
                    "could not be told apart: give each its own"
                )
        return True

    return replace(index_records(file, shard_rows, spool_dir, options, lines, visit), schema=SCHEMA)


def read(shard: Shard, schema: pa.Schema) -> ShardRows:
    """`schema`: that of the plan, which is always the same."""
    rows: list[dict[str, Any]] = []
    errors: dict[int, RowError] = {}
    for number, record in enumerate(read_records(shard, lines)):
        row, error = _row(record)
        rows.append(row)
        if error is not None:
            errors[number] = error
    seen = {name: [row.get(name) for row in rows] for name in schema.names}
    arrays = [json_array(seen[field.name], field.type) for field in schema]
    return ShardRows(pa.Table.from_arrays(arrays, schema=schema), errors, seen)


def _row(record: bytes) -> tuple[dict[str, Any], RowError | None]:
    row, error = parse(record)
    if error is not None and not row and (found := _CUSTOM_ID.search(record)) is not None:
        try:
            name = json.loads(found[1])
            name.encode()
        except ValueError:
            return row, error
        return {"custom_id": name}, error
    return row, error
