from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hfray.data.base import FileIndex, ShardRows
from hfray.data.formats import index_file, read_shard
from hfray.data.listing import list_files
from hfray.data.openai_batch import SCHEMA
from hfray.data.plan import Plan
from hfray.errors import DataError


def line(custom_id: Any, body: Any = None) -> str:
    body = {"model": "m", "input": "ü"} if body is None else body
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body})


def index(folder: Path, *lines: str | bytes) -> FileIndex:
    data = b"".join((each if isinstance(each, bytes) else each.encode()) + b"\n" for each in lines)
    (folder / "in.jsonl").write_bytes(data)
    (file,) = list_files((str(folder),), "openai-batch")
    return index_file(file, 2, str(folder / "spool"))


def rows(found: FileIndex) -> list[ShardRows]:
    plan = Plan([found])
    return [read_shard(plan.shard(number), plan.schema) for number in range(plan.num_shards)]


def test_the_body_is_parsed_for_the_task_and_kept_as_text(tmp_path: Path) -> None:
    found = index(tmp_path, line("a"), line("b", {"model": "m", "input": ["x", None]}), line("c"))
    assert found.schema == SCHEMA
    first, second = rows(found)
    assert (first.num_rows, second.num_rows) == (2, 1)
    assert first.rows()[0]["body"] == {"model": "m", "input": "ü"}
    assert json.loads(first.table["body"][1].as_py()) == {"model": "m", "input": ["x", None]}
    assert first.table["body"][0].as_py() == '{"model": "m", "input": "ü"}'


def test_what_is_no_request_fails_alone_under_its_name_if_it_has_one(tmp_path: Path) -> None:
    bad = ['{"custom_id": "cut \\u0041", "body": {', "no json", "[1]", '{"custom_id": 5}', '{"custom_id": "\\ud800", x']
    pieces = rows(index(tmp_path, *bad, b'{"custom_id": "\xff"}'))
    assert [name for each in pieces for name in each.table["custom_id"].to_pylist()] == [
        "cut A", None, None, "5", None, "\N{REPLACEMENT CHARACTER}",
    ]  # fmt: skip
    types = [each.errors[row].type if row in each.errors else None for each in pieces for row in range(each.num_rows)]
    assert types == ["MalformedRow", "MalformedRow", "MalformedRow", None, "MalformedRow", "InvalidText"]


def test_two_requests_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="custom_id '5' is in the requests 1 and 2"):
        index(tmp_path, line(5), line("5"))
    with pytest.raises(DataError, match="custom_id 'a' is in the requests 1 and 3"):
        index(tmp_path, line("a"), line("b"), '{"custom_id": "a", cut')


def test_only_a_job_that_says_so_reads_it_so(tmp_path: Path) -> None:
    index(tmp_path, line("a"))
    (tmp_path / "other.csv").write_text("x")
    (file,) = list_files((str(tmp_path / "in.jsonl"),), "auto")
    assert file.format == "jsonl"
    (file,) = list_files((str(tmp_path),), "openai-batch")
    assert (file.format, file.url) == ("openai-batch", str(tmp_path / "in.jsonl"))
