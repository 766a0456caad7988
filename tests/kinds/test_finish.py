"""errors.parquet and metrics, from parts of both formats."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.data.ledger import Ledger
from hfray.data.parts import assemble, decode_part, encode_part, part_facts
from hfray.errors import RowError, SpecError
from hfray.inference.receipt import Receipt
from hfray.kinds.finish import compute_metrics, write_errors

SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("label", pa.string()),
        ("stars", pa.int64()),
        ("tags", pa.list_(pa.string())),
        ("blob", pa.binary()),
    ]
)
ROWS = [
    {"text": "a", "label": "warm", "stars": 1, "tags": ["x"], "blob": b"\xff"},
    {"text": None, "label": "cold", "stars": 2, "tags": ["y", "z"], "blob": b"ok"},
    {"text": "c", "label": None, "stars": None, "tags": None, "blob": None},
]


def ledger_with(folder: Path, format: Any, parts: list[list[int]]) -> tuple[Ledger, list[Receipt]]:
    """A ledger whose parts hold these rows of ROWS; row 1 failed."""
    ledger = Ledger(str(folder / "out"), format, "f" * 64)
    ledger.open({"fingerprint": "f" * 64})
    receipts = []
    for shard, numbers in enumerate(parts):
        table = pa.Table.from_pylist([ROWS[number] for number in numbers], SCHEMA)
        results = [RowError("text is null", type="NullText") if n == 1 else ROWS[n]["label"] or "hot" for n in numbers]
        data = encode_part(assemble(table, results, pa.string()), format)
        ledger.commit_part(shard, data)
        facts = part_facts(decode_part(data, format, "part"), data)
        digest = hashlib.sha256(data).hexdigest()
        receipts.append(Receipt(shard, facts.rows, facts.failed, facts.size_bytes, digest))
    return ledger, receipts


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_errors_are_the_failed_rows_with_their_places(tmp_path: Path, format: Any) -> None:
    ledger, receipts = ledger_with(tmp_path, format, [[0, 1], [2], [1, 0]])
    write_errors(ledger, receipts, SCHEMA)
    table = pq.read_table(tmp_path / "out" / "errors.parquet")
    assert table.column_names == ["part", "row", "text", "label", "stars", "tags", "blob", "error"]
    rows = table.to_pylist()
    assert [(row["part"], row["row"]) for row in rows] == [
        (f"part-00000000.{format}", 1),
        (f"part-00000002.{format}", 0),
    ]
    assert rows[0]["error"] == {"type": "NullText", "message": "text is null"}
    assert (rows[0]["text"], rows[0]["label"], rows[0]["stars"]) == (None, "cold", 2)
    if format == "parquet":
        assert (rows[0]["tags"], rows[0]["blob"]) == (["y", "z"], b"ok")
    else:
        assert (rows[0]["tags"], rows[0]["blob"]) == ('["y", "z"]', "b2s=")


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_without_failures_the_file_is_there_and_empty(tmp_path: Path, format: Any) -> None:
    ledger, receipts = ledger_with(tmp_path, format, [[0], [2]])
    write_errors(ledger, receipts, SCHEMA)
    table = pq.read_table(tmp_path / "out" / "errors.parquet")
    assert table.num_rows == 0
    assert table.schema.names[-1] == "error"


class Compared:
    """A checked job as `compute_metrics` sees it; its task reports what it was given."""

    class job:  # noqa: N801
        class metrics:  # noqa: N801
            label = "label"

    class task:  # noqa: N801
        @staticmethod
        def metrics(results: list[Any], references: list[Any]) -> dict[str, float]:
            same = [result == reference for result, reference in zip(results, references, strict=True)]
            return {"accuracy": sum(same) / len(same), "rows": len(same)}


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_metrics_leave_out_failed_rows_and_those_without_a_reference(tmp_path: Path, format: Any) -> None:
    ledger, receipts = ledger_with(tmp_path, format, [[0, 1, 2], [0]])
    checked: Any = Compared()
    assert compute_metrics(checked, ledger, receipts) == {"accuracy": 1.0, "rows": 2}


def test_metrics_over_nothing_are_refused(tmp_path: Path) -> None:
    ledger, receipts = ledger_with(tmp_path, "parquet", [[1, 2]])
    checked: Any = Compared()
    with pytest.raises(SpecError, match=r"metrics\.label: no row"):
        compute_metrics(checked, ledger, receipts)
