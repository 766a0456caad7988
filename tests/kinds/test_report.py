from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from hfray.errors import DataError
from hfray.inference.receipt import Receipt, count_labels, count_lengths, count_scores
from hfray.inference.totals import Totals
from hfray.kinds.report import FileFailure, ModelFacts, Report, Session

EARLIER = (Session(started_at=500.0, wall_s=20.0, rows=200, failed=2, shards=2, workers=2, status="interrupted"),)


def make_report(
    name: str = "banking-intents", label: str = "card_arrival", earlier: Sequence[Session] = EARLIER, **facts: Any
) -> Report:
    """A report of 12 shards of 100 rows on two workers, two shards resumed, 10 s each."""
    totals = Totals()
    for shard in range(12):
        start = 1000.0 + 10 * (shard // 2)
        totals.add(
            Receipt(
                shard=shard,
                rows=100,
                failed=1,
                size_bytes=5000,
                sha256="ab" * 32,
                tokens=970,
                padded_tokens=1000,
                truncated=0 if shard < 2 else 3,
                busy_s=9.0,
                started_at=start,
                ended_at=start + 10,
                worker=f"w{shard % 2}",
                adopted=shard < 2,
                lengths=count_lengths(range(5, 105)),
                labels=count_labels([label] * 60 + ["lost_card"] * 39),
                scores=count_scores(index / 100 for index in range(99)),
                error_types={"NullText": 1},
            )
        )
    defaults: dict[str, Any] = {
        "name": name,
        "kind": "score",
        "task": "text-classification",
        "model": ModelFacts(
            path="org/model",
            revision="0" * 40,
            parameters=66_000_000,
            dtype="bfloat16",
            quantization="int8",
            bytes_before=264_000_000,
            bytes_after=90_000_000,
            device="cpu",
        ),
        "wall_s": 61.5,
        "started_at": 990.0,
        "metrics": {"accuracy": 0.875},
        "versions": {"hfray": "0.1.0", "ray": "2.60.0"},
        "output": "out/intents",
        "job": "jobs/intents.yaml",
        "log": "out/logs/" + "long-folder/" * 12 + "run.log",
        "fingerprint": "f" * 64,
        "spec": "kind: score\nname: banking-intents\n",
    }
    return Report.of(totals, earlier=earlier, **(defaults | facts))


def summary(report: Report, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    report.summary(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_figures() -> None:
    report = make_report()
    assert (report.rows, report.failed, report.shards) == (1200, 12, 12)
    assert (report.resumed_rows, report.resumed_shards) == (200, 2)
    assert report.padding_waste == pytest.approx(0.03)
    assert report.scoring_s == 50.0
    assert report.rows_per_s == 20.0  # the 1000 rows of this session
    assert report.tokens_per_s == 194.0
    assert report.busy_share == pytest.approx(0.9)
    assert sum(report.lengths) == 1200
    assert report.truncated == 30


def test_this_run_joins_the_earlier_sessions() -> None:
    this = Session(started_at=990.0, wall_s=61.5, rows=1000, failed=10, shards=10, workers=2, status="complete")
    assert make_report().sessions == (*EARLIER, this)


def test_json_round_trip() -> None:
    report = make_report(label="<b>卡片</b>\u2028", file_failures=(FileFailure(path="a.parquet", message="cut"),))
    text = report.to_json()
    assert Report.from_json(text) == report
    assert Report.from_json(text).to_json() == text
    data = json.loads(text)
    assert data["rows_per_s"] == 20.0
    assert data["padding_waste"] == pytest.approx(0.03)
    assert data["metrics"] == {"accuracy": 0.875}


def test_what_json_cannot_hold_does_not_cost_the_report() -> None:
    report = make_report(name="a\ud800b", metrics={"f1": float("nan"), "r2": float("-inf")})
    assert report.name == "a?b"
    assert report.metrics == {"f1": None, "r2": None}
    assert Report.from_json(report.to_json()) == report


def test_an_empty_job_has_no_rates() -> None:
    report = Report.of(Totals(), name="x", kind="score")
    assert (report.rows_per_s, report.tokens_per_s, report.padding_waste, report.busy_share) == (0, 0, 0, 0)
    assert (report.lengths, report.scores, report.throughput) == ((), (), ())
    assert Report.from_json(report.to_json()) == report
    assert "rows" in summary(report)


def test_errors() -> None:
    with pytest.raises(DataError, match="not a report"):
        Report.from_json('{"name": "x"')
    with pytest.raises(DataError, match="kind"):
        Report.from_json('{"name": "x"}')
    with pytest.raises(ValidationError):
        make_report(rowz=1)


def test_summary_without_a_terminal() -> None:
    text = summary(make_report())
    assert "\x1b" not in text
    for part in ("banking-intents  complete", "1,200", "12 shards, 200 resumed", "NullText", "2 workers, 90 % busy",
                 "3.0 % padding", "30 rows truncated", "1m 02s", "90 MB", "was 264 MB", "accuracy",
                 "0.875"):  # fmt: skip
        assert part in text
    assert "long-folder/" * 12 + "run.log\n" in text  # whole, though wider than the console
    assert "hfray run jobs/intents.yaml --retry-errors\n" in text
    assert len(text.splitlines()) < 25


def test_summary_of_a_failed_job() -> None:
    report = Report(
        name="x",
        kind="score",
        status="failed",
        message="12 % of the rows failed, over max_error_rate 1 %",
        rows=100,
        failed=12,
        error_types={f"Type{index}": index for index in range(1, 9)},
        job="my job.yaml",
        file_failures=tuple(FileFailure(path=f"{index}.parquet", message="cut") for index in range(7)),
    )
    text = summary(report)
    assert "over max_error_rate 1 %" in text
    assert "other types" in text
    assert "and 2 files more" in text
    assert "hfray run 'my job.yaml' --retry-errors" in text


def test_summary_cannot_steer_the_terminal() -> None:
    report = make_report(name="[bold]x\x1b[2J[/bold]", output="out\x1b]0;t\x07", message="m\r\nn")
    text = summary(report)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]x" in text  # markup is text


def test_summary_on_a_terminal_is_coloured() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, _environ={"TERM": "xterm-256color"})
    make_report().summary(console)
    assert isinstance(console.file, io.StringIO)
    assert "\x1b[" in console.file.getvalue()
