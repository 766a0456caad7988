"""Identity, fingerprint, and how two identities differ."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError, model_validator

from hfray.spec.fields import difference, fingerprint, identity_of, misfit, operational
from hfray.spec.score import ScoreJob
from hfray.types import Strict

JOB: dict[str, Any] = {
    "name": "a",
    "model": {"path": "m"},
    "task": {"name": "text-classification", "top_k": 3},
    "input": {"path": "x.csv"},
    "output": {"path": "out"},
    "engine": {"name": "batch"},
}


def job(**changes: object) -> ScoreJob:
    return ScoreJob.model_validate(JOB | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "b"},
        {"output": {"path": "elsewhere"}},
        {"workers": {"min": 2, "max": 9}},
        {"max_error_rate": 0.5},
        {"engine": {"max_batch_tokens": 9}},
        {"model": {"path": "m", "device": "cpu"}},
        {"metrics": {"label": "y"}},
    ],
)
def test_operational_fields_do_not_count(changes: dict[str, object]) -> None:
    assert job(**changes) != job()
    assert fingerprint(identity_of(job())) == fingerprint(identity_of(job(**changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"shard_rows": 7},
        {"task": JOB["task"] | {"top_k": 4}},
        {"model": {"path": "n"}},
        {"model": {"path": "m", "dtype": "float32"}},
        {"output": {"path": "out", "format": "jsonl"}},
        {"engine": {"name": "fake"}},
        {"input": {"path": "x.csv", "limit": 5}},
    ],
)
def test_identity_fields_do(changes: dict[str, object]) -> None:
    assert fingerprint(identity_of(job())) != fingerprint(identity_of(job(**changes)))


def test_an_identity_is_plain_json() -> None:
    identity = identity_of(job(input={"path": ["b", "a"], "columns": {"z": "y", "a": "b"}}))
    assert json.loads(json.dumps(identity)) == identity
    assert identity["input"]["path"] == ["b", "a"]
    assert identity["engine"] == {"name": "batch"}
    assert list(identity) == sorted(identity)


def test_sections_inside_lists_and_mappings_count_too() -> None:
    class Part(Strict):
        weight: int = 1
        workers: int = operational(1)

    class Whole(Strict):
        parts: tuple[Part, ...] = ()
        named: dict[str, Part]

    identity = identity_of(Whole(parts=(Part(workers=5),), named={"a": Part(weight=2)}))
    assert identity == {"named": {"a": {"weight": 2}}, "parts": [{"weight": 1}]}


def test_differences_are_told_by_path() -> None:
    old, new = identity_of(job()), identity_of(job(task={"name": "text-classification", "top_k": 5}, seed=2))
    assert difference(old, new) == ["seed: 0 -> 2", "task.top_k: 3 -> 5"]
    assert difference({"a": 1}, {"b": [1]}) == ["a: 1 -> nothing", "b: nothing -> [1]"]
    assert difference({}, {"a": None}) == ["a: nothing -> null"]
    assert difference({"f": [{"n": 1}, {"n": 2}]}, {"f": [{"n": 1}, {"n": 3}]}) == ["f.1.n: 2 -> 3"]
    assert difference(old, old) == []


def test_long_values_are_shown_where_they_part() -> None:
    same = "x" * 500
    assert difference({"a": same + "1"}, {"a": same + "2"}) == [f'a: ...{same[:40]}1" -> ...{same[:40]}2"']


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.text("ab", max_size=2),
    lambda each: st.lists(each, max_size=2) | st.dictionaries(st.sampled_from("ab"), each, max_size=2),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from("abc"), PLAIN), st.dictionaries(st.sampled_from("abc"), PLAIN))
def test_a_difference_is_empty_if_and_only_if_the_fingerprints_are_equal(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    assert (difference(old, new) == []) == (fingerprint(old) == fingerprint(new))


def test_a_fingerprint_survives_any_text() -> None:
    assert len(fingerprint({"a": "\ud800", "ü": 1})) == 64
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_a_misfit_names_its_key() -> None:
    class Range(Strict):
        low: int
        high: int

        @model_validator(mode="after")
        def _check(self) -> Range:
            raise misfit("low", "too {high}")

    with pytest.raises(ValidationError) as caught:
        Range(low=1, high=0)
    (error,) = caught.value.errors()
    assert error["ctx"] == {"key": "low", "problem": "too {high}"}
