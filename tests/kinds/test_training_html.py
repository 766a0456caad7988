from __future__ import annotations

from hfray.kinds.report_html import render
from hfray.kinds.training_html import MAX_EVALUATIONS, MAX_METRICS
from hfray.training.facts import Evaluation
from tests.kinds.test_report_html import EVIL, parse
from tests.kinds.training import make_run, make_training_report
from tests.training.test_facts import make_facts, make_point


def test_the_page_tells_of_the_run() -> None:
    page = parse(make_training_report(make_run()))
    for part in (
        "steps", "2 epochs", "best accuracy", "at step 100", "MFU", "of 100 GFLOP/s, measured", "peak memory",
        "of a worker, 400 MB expected", "Loss", "Accuracy", "Macro f1", "Learning rate", "Gradient norm", "Throughput",
        "32k tokens, padding apart", "Memory of a worker", "largest peak so far", "Evaluations", "100 (best)", "0.6875",
        "150,000 of 22,000,000 parameters", "16 examples a step: 4 at once, 2 times on each worker", "1 then 2 on cpu",
        "ZeRO 0: 0.4 GB of 12 GB", "0.1 GFLOP for a token learned", "1m 40s training, 6.0 s evaluating", "from step 80",
        "Padding waste", "Sessions", "120",
    ):  # fmt: skip
        assert part in page.text, part
    assert page.tags.count("svg") == 8  # loss, two metrics, four curves, padding
    for part in ("rows", "shards", "Failed"):
        assert part not in page.text, part


def test_a_run_that_logged_nothing() -> None:
    page = parse(make_training_report(make_facts(step=0), metrics={}))
    assert "svg" not in page.tags
    assert "of 200" in page.text
    for part in ("Loss", "Evaluations", "Throughput", "MFU"):
        assert part not in page.text, part


def test_a_run_of_one_step() -> None:
    page = parse(make_training_report(make_facts([make_point(1, float("nan"))], step=1)))
    assert "n/a" in page.text
    assert page.tags.count("svg") == 1  # padding


def test_a_long_run_keeps_the_page_small() -> None:
    points = [make_point(step, 2 + step % 7) for step in range(1, 2001)]
    evaluations = tuple(
        Evaluation(step=step, epoch=1, seconds=1.0, metrics={f"metric_{name}": step / 1000 for name in range(20)})
        for step in range(1, 1000)
    )
    facts = make_facts(points, step=2000, evaluations=evaluations, metric_for_best="metric_3", best_step=7)
    html = render(make_training_report(facts))
    assert len(html) < 350_000
    page = parse(make_training_report(facts))
    assert f"last {MAX_EVALUATIONS} of {len(facts.evaluations)}" in page.text
    assert "7 (best)" in page.text
    assert MAX_EVALUATIONS < page.tags.count("tr") < MAX_EVALUATIONS + 60
    assert page.tags.count("svg") == 6 + MAX_METRICS


def test_text_from_outside_is_escaped() -> None:
    evaluation = Evaluation(step=1, epoch=1, seconds=1.0, metrics={EVIL: 1.0})
    facts = make_facts(
        [make_point(1)], device=EVIL, deepspeed=EVIL, evaluations=(evaluation,), metric_for_best=EVIL, best_step=1
    )
    page = parse(make_training_report(facts))
    assert not {"script", "img"} & set(page.tags)
    assert page.text.count(EVIL) >= 4
