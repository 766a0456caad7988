"""From files to a plan: cached, and with a reason for every file that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfray.data.ledger import Ledger
from hfray.data.plan import Plan
from hfray.errors import DataError, SpecError
from hfray.kinds import indexing
from hfray.kinds.cluster import Cluster
from hfray.kinds.indexing import index_input
from hfray.spec.sections import InputSpec


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        pq.write_table(pa.table({"text": [f"{number} {row}" for row in range(10)]}), folder / f"{number}.parquet")
    return folder


def index(files: Path, **changes: Any) -> tuple[Plan, dict[str, str], list[str]]:
    ledger = Ledger(str(files.parent / "out"), "parquet", "")
    phases: list[str] = []
    spec = InputSpec(path=(str(files),), **changes)
    plan, failures = index_input(spec, 4, ledger, Cluster(), phases.append)
    return plan, failures, phases


def test_a_plan_of_all_files_in_order(files: Path) -> None:
    plan, failures, phases = index(files)
    assert (plan.num_rows, plan.num_shards, failures) == (30, 9, {})
    assert [Path(each.file.url).name for each in plan.indexes] == ["0.parquet", "1.parquet", "2.parquet"]
    assert phases[-1] == "indexing 3/3 files"
    assert index(files, limit=5)[0].num_rows == 5


def test_the_second_run_reads_no_file(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, _ = index(files)
    monkeypatch.setattr(indexing, "index_file", None)
    second, _, phases = index(files)
    assert second.input_identity() == first.input_identity()
    assert phases == []


def test_a_changed_file_is_indexed_again(files: Path) -> None:
    first, _, _ = index(files)
    pq.write_table(pa.table({"text": ["new"]}), files / "1.parquet")
    second, _, _ = index(files)
    assert second.num_rows == 21
    assert second.input_identity() != first.input_identity()


def test_broken_files_are_named_and_the_others_stay(files: Path) -> None:
    whole = (files / "1.parquet").read_bytes()
    (files / "1.parquet").write_bytes(whole[:50])
    plan, failures, _ = index(files)
    assert plan.num_rows == 20
    assert [Path(url).name for url in failures] == ["1.parquet"]
    assert "1.parquet" in next(iter(failures.values()))


def test_no_readable_file_at_all(files: Path) -> None:
    for path in files.iterdir():
        path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"no input file can be read:\n.*0\.parquet"):
        index(files)


def test_a_path_that_leads_nowhere(files: Path) -> None:
    with pytest.raises(SpecError, match="nothing here"):
        index(files.parent / "nothing here")
