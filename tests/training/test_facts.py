from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from hfray.training.facts import MAX_POINTS, Evaluation, Point, TrainingFacts


def make_point(step: int, loss: float | None = 1.0, **facts: Any) -> Point:
    """16 examples a step of 10 tokens on 12 places each, a step in half a second."""
    counted = {
        "step": step, "samples": 16 * step, "epoch": step / 100, "learning_rate": 1e-3, "grad_norm": 0.5,
        "seconds": 0.5 * step, "tokens": 160 * step, "padded_tokens": 192 * step, "memory_bytes": 10**9,
    }  # fmt: skip
    return Point(**(counted | {"loss": loss} | facts))


def make_facts(points: Sequence[Point] = (), **facts: Any) -> TrainingFacts:
    """A LoRA run of 200 steps on two workers."""
    defaults: dict[str, Any] = {
        "method": "lora", "parameters": 22_000_000, "trainable": 150_000, "num_examples": 1600, "num_steps": 200,
        "step": 200, "global_batch_size": 16, "micro_batch_size": 4, "accumulation": 2, "world_sizes": (2,),
        "precision": "bf16", "device": "cpu", "deepspeed": "ZeRO 0: 0.4 GB of 12 GB", "expected_bytes": 4 * 10**8,
        "flops_per_token": 1e8, "peak_flops": 1e11, "points": tuple(points),
    }  # fmt: skip
    return TrainingFacts(**(defaults | facts))


def evaluation(step: int, **metrics: float) -> Evaluation:
    return Evaluation(step=step, epoch=step / 100, seconds=1.0, metrics={"loss": 1.0} | metrics)


def test_what_follows_from_the_last_point() -> None:
    facts = make_facts([make_point(10, 2.0), make_point(200, 0.5, memory_bytes=2 * 10**9)])
    assert (facts.first_loss, facts.final_loss) == (2.0, 0.5)
    assert (facts.tokens, facts.training_s, facts.epochs, facts.memory_bytes) == (32_000, 100.0, 2.0, 2 * 10**9)
    assert facts.tokens_per_s == 320
    assert facts.padding_waste == pytest.approx(1 / 6)
    assert facts.mfu == pytest.approx(32_000 * 1e8 / (100 * 2 * 1e11))


def test_utilisation_counts_the_workers_of_each_session() -> None:
    points = [make_point(step) for step in (50, 100, 200)]
    facts = make_facts(points, world_sizes=(4, 1, 2), resumed_from=(75, 100))
    assert facts.worker_s == pytest.approx(0.5 * (75 * 4 + 25 * 1 + 100 * 2))
    assert facts.mfu == pytest.approx(32_000 * 1e8 / (facts.worker_s * 1e11))
    assert make_facts(points, world_sizes=(4, 2), resumed_from=(200,)).worker_s == 400
    assert make_facts(points, peak_flops=None).mfu is None


def test_a_run_that_logged_nothing() -> None:
    facts = make_facts()
    assert (facts.tokens_per_s, facts.padding_waste, facts.mfu, facts.final_loss, facts.best) == (
        0,
        0,
        None,
        None,
        None,
    )
    assert TrainingFacts.model_validate_json(facts.model_dump_json()) == facts


def test_json_comes_back_with_what_follows_written_beside() -> None:
    facts = make_facts([make_point(10)], evaluations=(evaluation(10, f1=0.75),), metric_for_best="f1", best_step=10)
    text = facts.model_dump_json()
    assert TrainingFacts.model_validate_json(text) == facts
    assert json.loads(text)["best_value"] == 0.75
    assert json.loads(text)["tokens_per_s"] == 320


def test_what_json_cannot_hold_becomes_null() -> None:
    infinity = float("inf")
    facts = make_facts(
        [make_point(10, float("nan"), grad_norm=infinity)],
        evaluations=(evaluation(10, perplexity=infinity),),
        deepspeed="a\ud800b",
    )
    assert (facts.final_loss, facts.points[0].grad_norm, facts.evaluations[0].metrics["perplexity"]) == (None,) * 3
    assert facts.deepspeed == "a?b"


def test_a_resumed_session_replaces_what_was_lost() -> None:
    before = [make_point(step, 9.0) for step in (10, 20, 30)]
    facts = make_facts([*before, make_point(20, 1.0), make_point(25, 1.0)])
    assert [(point.step, point.loss) for point in facts.points] == [(10, 9.0), (20, 1.0), (25, 1.0)]
    facts = make_facts(evaluations=(evaluation(10, f1=0.1), evaluation(20, f1=0.1), evaluation(20, f1=0.2)))
    assert [each.metrics["f1"] for each in facts.evaluations] == [0.1, 0.2]


def test_many_points_are_thinned_and_a_spike_stays() -> None:
    losses: dict[int, float | None] = {15_000: 9.0, 20_001: 0.001, 25_003: None}
    points = [make_point(step, losses.get(step, 2 - step / 10**5)) for step in range(1, 30_001)]
    facts = make_facts(points)
    kept = {point.step for point in facts.points}
    assert MAX_POINTS - 10 <= len(facts.points) <= MAX_POINTS
    assert {1, 30_000, *losses} <= kept
    assert max(b.step - a.step for a, b in zip(facts.points, facts.points[1:], strict=False)) < 300
    assert set(facts.points) <= set(points)
    assert TrainingFacts.model_validate_json(facts.model_dump_json()) == facts  # not thinned once more
    assert len(facts.model_dump_json()) < 150_000


def test_many_evaluations_are_thinned_and_the_best_stays() -> None:
    evaluations = tuple(evaluation(step, f1=step % 7 / 10) for step in range(1, 3001))
    facts = make_facts(evaluations=evaluations, metric_for_best="f1", best_step=780)
    assert MAX_POINTS - 10 <= len(facts.evaluations) <= MAX_POINTS
    assert facts.best is not None
    assert facts.best_value == 0.3  # neither the lowest nor the highest of its stretch
    assert (facts.evaluations[0].step, facts.evaluations[-1].step) == (1, 3000)


def test_as_many_points_as_are_kept_stay_as_they_are() -> None:
    points = tuple(make_point(step) for step in range(1, MAX_POINTS + 1))
    assert make_facts(points).points == points


def test_unknown_facts_are_errors() -> None:
    with pytest.raises(ValidationError, match="lost"):
        make_point(1, lost=2.0)
