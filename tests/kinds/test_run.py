"""From the command line's side: what is printed, where the log is, how a run is interrupted."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from hfray.errors import DataError, SpecError
from hfray.inference.totals import Totals
from hfray.kinds import run
from hfray.kinds.report import Report
from hfray.kinds.run import INTERRUPTED, run_job
from hfray.spec.score import ScoreJob

HOW: dict[str, Any] = {"restart": False, "retry_errors": False, "debug": False}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScoreJob:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spec = {
        "name": "run",
        "model": {"path": "m"},
        "task": {"name": "text-classification"},
        "input": {"path": "x"},
        "output": {"path": str(tmp_path / "out")},
    }
    return ScoreJob.model_validate(spec)


def kind(monkeypatch: pytest.MonkeyPatch, function: Any) -> None:
    monkeypatch.setitem(run._KINDS, "score", function)


def report() -> Report:
    return Report.of(
        Totals(), name="run", kind="score", task="text-classification", status="complete", message="", model=None,
        file_failures=(), started_at=0.0, wall_s=1.0, metrics={}, versions={}, output="out", job="job.yaml", log="",
        fingerprint="f", spec="",
    )  # fmt: skip


@pytest.mark.parametrize("quiet", [False, True])
def test_a_run_ends_with_its_summary(
    job: ScoreJob, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], quiet: bool
) -> None:
    kind(monkeypatch, lambda *_: report())
    assert run_job(job, quiet=quiet, **HOW) == 0
    assert ("complete" in capfd.readouterr().out) is not quiet


def test_chatter_goes_to_the_log_which_errors_name(
    job: ScoreJob, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def failing(*_: Any) -> Report:
        os.write(2, b"chatter of a child\n")
        raise DataError("the disk is full")

    kind(monkeypatch, failing)
    with pytest.raises(DataError) as caught:
        run_job(job, quiet=True, **HOW)
    (note,) = caught.value.__notes__
    log = Path(note.removeprefix("log: "))
    assert log.parent.parent == tmp_path
    assert "chatter of a child" in log.read_text()
    assert "chatter" not in capfd.readouterr().err


def test_a_mistake_in_the_job_names_no_log(job: ScoreJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> Report:
        raise SpecError("no such column")

    kind(monkeypatch, failing)
    with pytest.raises(SpecError) as caught:
        run_job(job, quiet=True, **HOW)
    assert not getattr(caught.value, "__notes__", [])


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_interrupt_and_the_handler_is_given_back(
    job: ScoreJob, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], signum: int
) -> None:
    def interrupted(*_: Any) -> Report:
        os.kill(os.getpid(), signum)
        return report()

    kind(monkeypatch, interrupted)
    before = signal.getsignal(signal.SIGTERM)
    assert run_job(job, quiet=False, **HOW) == INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) is before
    assert "goes on from there" in capfd.readouterr().out
