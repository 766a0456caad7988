from __future__ import annotations

import pytest

from hfray.kinds.report import Report, Session
from tests.kinds.test_report import summary
from tests.kinds.training import EARLIER, make_run, make_training_report
from tests.training.test_facts import make_facts, make_point


def test_the_summary_of_a_training_run() -> None:
    text = summary(make_training_report(make_run()), width=120)
    for part in (
        "banking-lora  complete  train text-classification with org/model", "200",
        "2 epochs of 1,600 examples, 16 a step", "lora", "150k", "of 22M parameters, 0.68 %", "from step 80, 1 failure",
        "from 3.85", "best of 2 evaluations, at step 100", "validation loss", "2.5", "320",
        "32k tokens, 16.7 % padding", "of 100 GFLOP/s a worker, measured",
        "cpu, bf16, 4 examples at once, accumulated 2 times, earlier 1", "1 GB", "of a worker at most, 400 MB expected",
        "2m 10s", "1m 40s training, 6.0 s evaluating", "deepspeed  ZeRO 0: 0.4 GB of 12 GB\n",
        "model      out/banking-lora\n", "log        out/logs/run.log\n",
    ):  # fmt: skip
        assert part in text, part
    for part in ("rows", "shard", "output", "retry", "failed"):
        assert part not in text, part
    assert len(text.splitlines()) < 25


def test_what_was_not_measured_is_not_said() -> None:
    text = summary(make_training_report(make_facts(peak_flops=None, step=0), metrics={}))
    for part in ("MFU", "tokens/s", "loss", "GB expected", "resumed", "earlier", "best"):
        assert part not in text, part
    assert "of 200, 16 a step" in text


def test_a_loss_that_was_not_finite_is_seen() -> None:
    facts = make_facts([make_point(10, 2.0), make_point(20, float("nan"))], step=20)
    text = summary(make_training_report(facts, metrics={}, status="failed", message="step 20: the loss is NaN"))
    assert "n/a" in text
    assert "from 2" in text
    assert "step 20: the loss is NaN" in text


def test_the_metrics_of_the_report_are_shown_where_it_has_some() -> None:
    text = summary(make_training_report(make_run(), metrics={"accuracy": 0.8125}))
    assert "0.8125" in text
    assert "macro_f1" not in text


def test_without_metrics_of_its_own_the_report_shows_those_of_the_best_evaluation() -> None:
    text = summary(make_training_report(make_run(), metrics={}))
    assert "0.75" in text
    assert "0.6875" not in text
    text = summary(make_training_report(make_run(best_step=None, metric_for_best=None), metrics={}))
    assert "0.6875" in text


def test_a_report_of_a_training_run() -> None:
    report = make_training_report(make_run())
    this = Session(started_at=990.0, wall_s=130.0, rows=120, workers=2)
    assert report.sessions == (*EARLIER, this)
    assert (report.tokens, report.padded_tokens, report.workers) == (32_000, 38_400, 2)
    assert report.padding_waste == pytest.approx(1 / 6)
    assert (report.rows_per_s, report.tokens_per_s) == (32, 320)
    assert report.activity == "training"
    assert Report.from_json(report.to_json()) == report
