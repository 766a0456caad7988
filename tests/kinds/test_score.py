"""A scoring run from checks to report, with its workers in this process. With Ray: tests/promises."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from hfray.data.lease import Lease
from hfray.errors import DataError, EngineError, ErrorRateExceeded, LeaseHeld, SpecError
from hfray.inference.receipt import Receipt, ShardFailure
from hfray.kinds.progress import Progress
from hfray.kinds.report import Report
from hfray.kinds.score import ScoreRun
from hfray.spec.score import ScoreJob
from tests.kinds import in_process
from tests.models.support import save_decoder, save_model

Answers = Iterator[Receipt | ShardFailure]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


class Office:
    """Runs jobs over 50 rows in shards of 10. `deal` may change which answers come back."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model
        self.computed: list[int] = []
        self.deal: Callable[[Answers], Answers] = lambda answers: answers
        self.write([f"text {number}" for number in range(50)])

    def write(self, texts: Sequence[Any]) -> None:
        table = pa.table({"n": list(range(len(texts))), "text": pa.array(texts, pa.string())})
        pq.write_table(table, self.folder / "in.parquet")

    def run(self, *, restart: bool = False, retry_errors: bool = False, **changes: Any) -> Report:
        spec: dict[str, Any] = {
            "name": "office",
            "model": {"path": str(self.model)},
            "task": {"name": "text-classification"},
            "input": {"path": str(self.folder / "in.parquet")},
            "output": {"path": str(self.folder / "out")},
            "engine": {"name": "fake"},
            "shard_rows": 10,
        }
        job = ScoreJob.model_validate(spec | changes)
        with Progress(Console(file=io.StringIO()), quiet=True) as progress:
            return ScoreRun(job, progress, job_path="job.yaml", log_path="", debug=False).run(
                restart=restart, retry_errors=retry_errors
            )

    def run_shards(self, cluster: Any, shards: Sequence[int], make_worker: Any, workers: Any, **how: Any) -> Answers:
        worker = make_worker(lambda tick: None, lambda facts: None)

        def answers() -> Answers:
            for shard in shards:
                self.computed.append(shard)
                yield getattr(worker, how["method"])(shard)
            if worker._predictor is not None:
                worker._predictor.engine.close()

        yield from self.deal(answers())

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "_SUCCESS").read_text())
        return found

    def report(self) -> Report:
        return Report.from_json((self.out / "report.json").read_bytes())


@pytest.fixture
def office(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    each = Office(tmp_path, model)
    in_process.use(monkeypatch, each.run_shards)
    return each


def test_a_run_finishes_and_the_next_one_finds_nothing_to_do(office: Office) -> None:
    report = office.run()
    assert (report.status, report.rows, report.shards, report.failed) == ("complete", 50, 5, 0)
    assert office.manifest()["rows"] == 50
    files = {path: path.stat().st_mtime_ns for path in office.out.rglob("*")}
    again = office.run()
    assert "already complete" in again.message
    assert {path: path.stat().st_mtime_ns for path in office.out.rglob("*")} == files
    assert office.computed == [0, 1, 2, 3, 4]


def test_parts_without_receipts_are_read_without_a_worker(office: Office) -> None:
    office.run()
    manifest = office.manifest()
    (office.out / "_SUCCESS").unlink()
    shutil.rmtree(office.out / "_work" / "receipts")
    office.computed.clear()
    report = office.run()
    assert office.computed == []
    assert report.resumed_rows == 50
    assert office.manifest() == manifest


def test_only_what_is_missing_is_computed(office: Office) -> None:
    office.run()
    (office.out / "_SUCCESS").unlink()
    (office.out / "data" / "part-00000003.parquet").unlink()
    office.computed.clear()
    report = office.run()
    assert office.computed == [3]
    assert (report.rows, report.resumed_rows) == (50, 40)


def test_answers_that_a_killed_worker_took_along_are_found_and_none_counts_twice(office: Office) -> None:
    def lossy(answers: Answers) -> Answers:
        for number, answer in enumerate(answers):
            if number != 1:
                yield answer
                yield answer

    office.deal = lossy
    report = office.run()
    assert (report.rows, report.shards) == (50, 5)
    assert len(office.manifest()["parts"]) == 5


def test_shards_that_never_come_back_end_the_run(office: Office) -> None:
    office.deal = lambda answers: iter([next(answers)])
    with pytest.raises(EngineError, match="2 shards came back without an answer, the first is 3"):
        office.run()
    assert not (office.out / "_SUCCESS").exists()


def test_too_many_errors_keep_the_parts_and_a_higher_limit_finishes(office: Office) -> None:
    office.write(["good"] * 48 + [None] * 2)
    with pytest.raises(ErrorRateExceeded, match=r"2 rows failed \(NullText 2\), more than max_error_rate 0.01"):
        office.run()
    assert office.report().status == "failed"
    office.computed.clear()
    report = office.run(max_error_rate=0.1)
    assert office.computed == []
    assert report.failed == 2
    assert [session.status for session in report.sessions] == ["failed", "complete"]
    assert pq.read_metadata(office.out / "errors.parquet").num_rows == 2


def test_another_job_is_refused_with_the_difference_and_restart_makes_room(office: Office) -> None:
    office.run()
    with pytest.raises(SpecError, match=r"(?s)begun with another job:.*top_k: null -> 2.*--restart"):
        office.run(task={"name": "text-classification", "top_k": 2})
    assert office.run(workers={"max": 1}).message, "an operational field changes no job"
    report = office.run(task={"name": "text-classification", "top_k": 2}, restart=True)
    assert (report.status, report.resumed_rows) == ("complete", 0)


def test_parts_that_the_job_cannot_have_are_refused(office: Office) -> None:
    office.run()
    (office.out / "_SUCCESS").unlink()
    shutil.copy(office.out / "data" / "part-00000000.parquet", office.out / "data" / "part-00000009.parquet")
    with pytest.raises(DataError, match="holds part 9, but the job has 5"):
        office.run()


def test_unreadable_shards_fail_the_run_until_they_are_accepted(office: Office) -> None:
    def broken(answers: Answers) -> Answers:
        for answer in answers:
            if isinstance(answer, Receipt) and answer.shard == 2:
                (office.out / "data" / "part-00000002.parquet").unlink(missing_ok=True)
                yield ShardFailure(2, "in.parquet", "cut short")
            else:
                yield answer

    office.deal = broken
    with pytest.raises(DataError, match=r"(?s)1 input file\(s\).*cut short.*skip_bad_files"):
        office.run()
    source = {"path": str(office.folder / "in.parquet"), "skip_bad_files": True}
    assert office.run(input=source).rows == 40
    assert office.manifest()["rejected_files"] == {"in.parquet": "cut short"}
    assert [row[0] for row in office.manifest()["parts"]] == [f"part-0000000{shard}.parquet" for shard in (0, 1, 3, 4)]


def test_a_run_that_lost_its_lease_writes_no_report(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(self: Lease) -> None:
        self.lost.set()
        raise LeaseHeld("another run has taken over")

    monkeypatch.setattr(Lease, "check", lost)
    with pytest.raises(LeaseHeld):
        office.run()
    assert not (office.out / "report.json").exists()
    assert not (office.out / "_SUCCESS").exists()


def test_an_interrupted_run_says_so_and_goes_on(office: Office) -> None:
    def interrupted(answers: Answers) -> Answers:
        yield next(answers)
        raise KeyboardInterrupt

    office.deal = interrupted
    with pytest.raises(KeyboardInterrupt):
        office.run()
    assert office.report().status == "interrupted"
    office.deal = lambda answers: answers
    assert office.run().resumed_rows == 10


def test_what_a_worker_raises_is_told_in_our_words(office: Office) -> None:
    def failing(answers: Answers) -> Answers:
        yield next(answers)
        raise RuntimeError("actor died\nout of memory")

    office.deal = failing
    with pytest.raises(EngineError, match="a worker failed: out of memory"):
        office.run()
    assert office.report().status == "failed"


def test_a_failed_retry_leaves_a_complete_output_as_it_was(office: Office) -> None:
    office.write(["good"] * 49 + [None])
    office.run(max_error_rate=0.1)
    before = office.report()

    def failing(answers: Answers) -> Answers:
        raise RuntimeError("out of luck")
        yield

    office.deal = failing
    with pytest.raises(EngineError):
        office.run(max_error_rate=0.1, retry_errors=True)
    assert office.report() == before
    assert office.manifest()["failed"] == 1


def test_a_begun_retry_is_finished_by_any_later_run(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    from hfray.data.ledger import Ledger

    office.write(["good"] * 49 + [None])
    office.run(max_error_rate=0.1)
    before = office.manifest()
    with monkeypatch.context() as patch:
        finish = Ledger.finish_retry
        calls: list[int] = []

        def killed(self: Ledger) -> None:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            finish(self)

        patch.setattr(Ledger, "finish_retry", killed)
        with pytest.raises(KeyboardInterrupt):
            office.run(max_error_rate=0.1, retry_errors=True)
    assert office.computed[-1] == 4
    report = office.run(max_error_rate=0.1)
    assert "already complete" not in report.message
    assert not (office.out / "_work" / "retry.json").exists()
    assert office.manifest() == before, "the row is as bad as it was"


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.2, "num_return_sequences": 2}], ids=["greedy", "sampled"])
def test_texts_do_not_depend_on_where_a_run_was_cut(
    office: Office, tmp_path_factory: pytest.TempPathFactory, sampling: dict[str, Any]
) -> None:
    """The continuous engine is chosen unasked; another run starts at another shard, and is interrupted twice."""
    folder = save_decoder(tmp_path_factory.mktemp("decoder"))
    changes: dict[str, Any] = {
        "model": {"path": str(folder), "dtype": "float32"},
        "task": {"name": "text-generation", "max_new_tokens": 12, **sampling},
        "input": {"path": str(office.folder / "in.parquet"), "columns": {"prompt": "text"}},
        "engine": None,
    }
    office.run(**changes)
    assert "name: continuous" in (office.out / "spec.yaml").read_text()
    wanted = {path.name: path.read_bytes() for path in (office.out / "data").iterdir()}
    assert len({str(each) for each in pq.read_table(office.out / "data")["result"].to_pylist()}) > 25
    shutil.rmtree(office.out)

    def interrupted(answers: Answers) -> Answers:
        yield next(answers)
        raise KeyboardInterrupt

    office.deal = interrupted
    office.computed.clear()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            office.run(**changes)
    office.deal = lambda answers: answers
    office.run(**changes)
    assert office.computed == [0, 1, 2, 3, 4]
    assert {path.name: path.read_bytes() for path in (office.out / "data").iterdir()} == wanted
