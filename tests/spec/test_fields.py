"""Identity, fingerprint, and how two identities differ."""

from __future__ import annotations

from hfray.spec.fields import difference, fingerprint, identity_of
from hfray.spec.score import ScoreJob

JOB = {
    "name": "a",
    "model": {"path": "m"},
    "task": {"name": "text-classification", "top_k": 3},
    "input": {"path": "x.csv"},
    "output": {"path": "out"},
}


def job(**changes: object) -> ScoreJob:
    return ScoreJob.model_validate(JOB | changes)


def test_operational_fields_do_not_count() -> None:
    same = job(workers={"min": 2, "max": 9}, max_error_rate=0.5, engine={"max_batch_tokens": 9, "name": "batch"})
    assert fingerprint(identity_of(job())) == fingerprint(identity_of(same))
    assert "workers" not in identity_of(job())


def test_identity_fields_do() -> None:
    base = fingerprint(identity_of(job()))
    for changes in ({"seed": 1}, {"shard_rows": 7}, {"task": JOB["task"] | {"top_k": 4}}, {"model": {"path": "n"}}):  # type: ignore[operator]
        assert fingerprint(identity_of(job(**changes))) != base, changes


def test_differences_are_told_by_path() -> None:
    old, new = identity_of(job()), identity_of(job(task={"name": "text-classification", "top_k": 5}, seed=2))
    assert difference(old, new) == ["task.top_k: 3 -> 5", "seed: 0 -> 2"]
    assert difference({"a": 1}, {"b": [1]}) == ["a: 1 -> nothing", "b: nothing -> [1]"]
    assert difference({"f": [{"n": 1}, {"n": 2}]}, {"f": [{"n": 1}, {"n": 3}]}) == ["f.1.n: 2 -> 3"]
    assert difference(old, old) == []


def test_a_fingerprint_survives_any_text() -> None:
    assert len(fingerprint({"a": "\ud800", "ü": 1})) == 64
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
