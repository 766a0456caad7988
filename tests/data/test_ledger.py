"""The ledger: first one wins, receipts are a cache, a retry is rolled forward from wherever it was killed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from hfray.data.ledger import Ledger, PartEntry, check_output_is_ours
from hfray.errors import DataError

FINGERPRINT = "f" * 64


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    each = Ledger(str(tmp_path / "out"), "parquet", FINGERPRINT)
    each.open({"fingerprint": FINGERPRINT, "spec": {"top_k": 1}})
    return each


def receipt(shard: int, data: bytes) -> str:
    return json.dumps({"shard": shard, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})


def folder(ledger: Ledger) -> Path:
    return Path(ledger.url)


def test_the_first_commit_wins_and_leaves_nothing_behind(ledger: Ledger) -> None:
    assert not ledger.has_part(3)
    assert ledger.commit_part(3, b"first")
    assert not ledger.commit_part(3, b"second")
    assert ledger.read_part(3) == b"first"
    assert ledger.part_sizes() == {3: 5}
    assert not os.listdir(folder(ledger) / ledger.attempts)


def test_the_identity_of_the_first_run_stays(ledger: Ledger) -> None:
    ledger.open({"fingerprint": "other"})
    assert ledger.identity() == {"fingerprint": FINGERPRINT, "spec": {"top_k": 1}}


def test_success_is_written_once_and_speaks_of_every_part(ledger: Ledger) -> None:
    assert ledger.success() is None
    entries = [PartEntry(0, 250, 2, 9, "aa"), PartEntry(1, 50, 0, 8, "bb")]
    assert ledger.write_success(FINGERPRINT, entries, {"bad.parquet": "cut"}, {"shards": 2})
    assert not ledger.write_success(FINGERPRINT, [], {}, {})
    manifest = ledger.success()
    assert manifest is not None
    assert (manifest["rows"], manifest["failed"], manifest["shards"]) == (300, 2, 2)
    assert manifest["parts"][1] == ["part-00000001.parquet", 50, 0, 8, "bb"]
    assert manifest["rejected_files"] == {"bad.parquet": "cut"}


def test_half_written_receipts_of_a_killed_driver_are_not_read(ledger: Ledger) -> None:
    ledger.save_receipts(['{"shard":1}', '{"shard":2}'])
    ledger.save_receipts([])
    (folder(ledger) / "_work" / "receipts" / ".ab.jsonl.cd.tmp").write_text('{"sha')
    assert sorted(ledger.load_receipts()) == ['{"shard":1}', '{"shard":2}']


def test_what_killed_drivers_left_is_swept_and_is_not_foreign(ledger: Ledger) -> None:
    (folder(ledger) / "data" / "train").mkdir()
    for name in (
        ".errors.parquet.ab.tmp",
        "data/.part-00000001.parquet.ab.tmp",
        "data/train/.state.json.ab.tmp",
        "_work/.lease.json.ab.tmp",
    ):
        (folder(ledger) / name).write_text("half")
    check_output_is_ours(ledger)
    ledger.sweep_temporary()
    assert not list(folder(ledger).rglob("*.tmp"))


def test_files_of_somebody_else_are_refused(ledger: Ledger) -> None:
    (folder(ledger) / "data" / "holiday.jpg").write_text("x")
    with pytest.raises(DataError, match="holiday"):
        check_output_is_ours(ledger)


def test_clear_deletes_what_hfray_wrote_and_stops_late_writers(ledger: Ledger) -> None:
    ledger.commit_part(0, b"x")
    ledger.save_receipts(["{}"])
    ledger.write_success(FINGERPRINT, [], {}, {})
    (folder(ledger) / "data" / "holiday.jpg").write_text("x")
    checkpoint = folder(ledger) / "_work" / "checkpoints" / "f" / "00000010-1"
    checkpoint.mkdir(parents=True)
    opening = Ledger(ledger.url, "parquet", "")
    opening.open_work()
    opening.clear()
    assert not checkpoint.exists()
    assert ledger.success() is None
    assert ledger.identity() is None
    assert ledger.part_sizes() == {}
    assert os.listdir(folder(ledger) / "data") == ["holiday.jpg"]
    with pytest.raises(DataError, match="took over"):
        ledger.commit_part(1, b"late")
    assert ledger.part_sizes() == {}


def begun_retry(ledger: Ledger) -> list[str]:
    """Three parts of which two are to be replaced; the new ones are as long as the old ones."""
    for shard in range(3):
        ledger.commit_part(shard, b"old %d" % shard)
    ledger.save_receipts([receipt(shard, b"old %d" % shard) for shard in range(3)])
    ledger.write_success(FINGERPRINT, [], {}, {})
    for shard in (0, 2):
        ledger.stage_part(shard, b"new %d" % shard)
    lines = [receipt(shard, b"new %d" % shard) for shard in (0, 2)]
    assert ledger.read_part(0) == b"old 0", "nothing changes before the retry is begun"
    ledger.begin_retry(lines)
    return lines


def check_retried(ledger: Ledger, lines: list[str]) -> None:
    assert [ledger.read_part(shard) for shard in range(3)] == [b"new 0", b"old 1", b"new 2"]
    assert set(ledger.load_receipts()) == {*lines, receipt(1, b"old 1")}, "no receipt outlives its part"
    assert not ledger.retry_begun()
    assert ledger.success() is None
    assert not (folder(ledger) / "_work" / "retry").exists()


def test_a_retry_replaces_what_was_staged(ledger: Ledger) -> None:
    lines = begun_retry(ledger)
    assert ledger.retry_begun()
    ledger.finish_retry()
    check_retried(ledger, lines)
    ledger.finish_retry()
    check_retried(ledger, lines)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(12))
def test_a_killed_retry_is_rolled_forward(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    lines = begun_retry(ledger)
    steps = iter(range(100))

    def dying(method: Any) -> Any:
        def wrapped(*args: Any) -> Any:
            if next(steps) == step:
                raise Killed
            return method(*args)

        return wrapped

    with monkeypatch.context() as patch:
        for name in ("replace", "delete", "delete_prefix"):
            patch.setattr(ledger.storage, name, dying(getattr(ledger.storage, name)))
        died = False
        try:
            ledger.finish_retry()
        except Killed:
            died = True
    assert died == (step < 7), "seven steps change something"
    ledger.finish_retry()
    ledger.discard_retry()
    check_retried(ledger, lines)


def test_a_late_worker_cannot_change_what_a_receipt_speaks_of(ledger: Ledger) -> None:
    lines = begun_retry(ledger)
    ledger.stage_part(0, b"from a worker of a dead run")
    ledger.finish_retry()
    check_retried(ledger, lines)
