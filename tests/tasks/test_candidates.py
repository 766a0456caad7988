"""Candidate labels: where they come from, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from hfray.errors import RowError, SpecError
from hfray.tasks.base import TaskOptions
from hfray.tasks.candidates import candidates_of, check_candidates, hypothesis


class Options(TaskOptions):
    name: str = "any"
    candidate_labels: tuple[str, ...] = ("tea", "coffee")
    hypothesis_template: str = "It is {}."


@pytest.mark.parametrize(
    ("row", "labels"),
    [
        ({}, ("tea", "coffee")),
        ({"candidate_labels": None}, ("tea", "coffee")),
        ({"candidate_labels": ["milk"]}, ("milk",)),
        ({"candidate_labels": " milk ,, oat milk"}, ("milk", "oat milk")),
        ({"candidate_labels": ("牛奶", "a, b")}, ("牛奶", "a, b")),
    ],
)
def test_a_rows_own_labels_go_first(row: dict[str, Any], labels: tuple[str, ...]) -> None:
    assert candidates_of(row, Options()) == labels


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ([], "NoLabels"),
        (" , ", "NoLabels"),
        (["a", "a"], "RepeatedLabel"),
        (["a", 1], "WrongType"),
        ([""], "EmptyText"),
        ({"a": 1}, "WrongType"),
        (["\ud800"], "InvalidText"),
    ],
)
def test_wrong_labels_are_named(value: Any, error: str) -> None:
    with pytest.raises(RowError) as caught:
        candidates_of({"candidate_labels": value}, Options())
    assert caught.value.type == error


def test_no_labels_at_all_is_the_rows_error() -> None:
    with pytest.raises(RowError, match="neither"):
        candidates_of({}, Options(candidate_labels=()))


@pytest.mark.parametrize(
    "changes",
    [
        {"hypothesis_template": "It is."},
        {"candidate_labels": ("a", "a")},
        {"candidate_labels": ("",)},
        {"candidate_labels": ("a\x00",)},
    ],
)
def test_wrong_options_are_the_authors_error(changes: dict[str, Any]) -> None:
    check_candidates(Options())
    with pytest.raises(SpecError, match=r"task\."):
        check_candidates(Options(**changes))


def test_a_hypothesis_formats_only_the_label() -> None:
    assert hypothesis("{} or {} {0} {!r:>9}", "a {}") == "a {} or a {} {0} {!r:>9}"
