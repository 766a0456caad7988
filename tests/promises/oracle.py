"""Oracle E: what a finished output must be, whatever happened on the way. Knows files; not how they came about."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TOLERANCE = 1e-5


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_part(name: str, data: bytes) -> list[dict[str, Any]]:
    """All rows of a part; raises if it is not whole."""
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in data.decode().split("\n") if line]
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return rows


def check(output: Path, source: pa.Table, undisturbed: Path | None = None, *, shard_rows: int = 250) -> None:
    """Rows against the input, `_SUCCESS` and `errors.parquet` against the parts, parts against an undisturbed run.

    source: the input, with a column `number` that counts its rows.
    """
    manifest = json.loads((output / "_SUCCESS").read_text())
    names = sorted(path.name for path in (output / "data").iterdir())
    assert names == [row[0] for row in manifest["parts"]], "data/ holds exactly the parts of _SUCCESS"
    expected = source.to_pylist()
    errors: list[tuple[str, int, Any]] = []
    position = 0
    for name, num_rows, num_failed, size_bytes, digest in manifest["parts"]:
        data = (output / "data" / name).read_bytes()
        rows = read_part(name, data)
        assert (len(rows), len(data), sha256(data)) == (num_rows, size_bytes, digest), f"_SUCCESS is wrong about {name}"
        assert len(rows) <= shard_rows
        inputs = [{key: row[key] for key in source.column_names} for row in rows]
        assert inputs == expected[position : position + num_rows], f"{name} does not hold its slice of the input"
        for row in rows:
            assert (row["result"] is None) != (row["error"] is None), f"{name}: one of result and error: {row}"
            assert row["error"] is None or (row["error"]["type"] and row["error"]["message"])
        failed = [(name, place, row["error"]) for place, row in enumerate(rows) if row["error"] is not None]
        assert len(failed) == num_failed
        errors += failed
        position += num_rows
        if undisturbed is not None:
            _check_equal(name, rows, data, undisturbed)
    assert position == len(expected) == manifest["rows"], "every row of the input is in a part"
    assert manifest["failed"] == len(errors)
    table = pq.read_table(output / "errors.parquet").to_pylist()
    assert [(row["part"], row["row"], row["error"]) for row in table] == errors
    assert leftovers(output) == []


def leftovers(output: Path) -> list[str]:
    """Attempt files, half-written files, staged parts."""
    return [
        str(path.relative_to(output))
        for path in output.rglob("*")
        if path.is_file()
        and (path.name.endswith(".tmp") or {"attempts", "retry"} & set(path.relative_to(output).parts[:-1]))
    ]


def _check_equal(name: str, rows: list[dict[str, Any]], data: bytes, undisturbed: Path) -> None:
    other = (undisturbed / "data" / name).read_bytes()
    for row, reference in zip(rows, read_part(name, other), strict=True):
        check_same_result(row, reference)
    assert sha256(data) == sha256(other), f"{name}: equal shards give equal bytes"


def check_same_result(row: dict[str, Any], other: dict[str, Any]) -> None:
    """The same labels with nearly the same scores, or the same error."""
    assert row["error"] == other["error"]
    assert _labels(row) == _labels(other)
    np.testing.assert_allclose(_scores(row), _scores(other), atol=TOLERANCE)


def _labels(row: dict[str, Any]) -> list[str]:
    return [each["label"] for each in row["result"] or ()]


def _scores(row: dict[str, Any]) -> list[float]:
    return [each["score"] for each in row["result"] or ()]
