"""Which submission is meant."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest

from hfray.errors import SpecError
from hfray.submit.attempts import Attempt, attempts_in, find, last_of

ONE, TWO = "a" * 12, "a" * 11 + "b"


class Status(Enum):
    SUCCEEDED = "SUCCEEDED"


def details(submission_id: str | None, started: int, **changes: Any) -> Any:
    values = {
        "submission_id": submission_id, "metadata": {"hfray": "1", "name": "trial"}, "status": Status.SUCCEEDED,
        "message": None, "driver_exit_code": 0, "start_time": started, "end_time": None,
    }  # fmt: skip
    return SimpleNamespace(**values | changes)


def attempt(job: str, number: int, name: str = "trial") -> Attempt:
    return Attempt(f"{job}-{number}", job, number, "FAILED", about={"name": name})


def test_only_what_hfray_submitted_counts() -> None:
    found = attempts_in(
        [
            details(f"{ONE}-2", 2000),
            details(f"{ONE}-1", 1000),
            details(None, 1),
            details("raysubmit_xyz", 1),
            details(f"{TWO}-1", 1, metadata={"name": "another's"}),
            details(f"{TWO}-0", 1),
            details("probe-abcdef", 1),
        ]
    )
    assert [(each.id, each.started_at, each.status) for each in found] == [
        (f"{ONE}-1", 1.0, "SUCCEEDED"),
        (f"{ONE}-2", 2.0, "SUCCEEDED"),
    ]


def test_the_last_attempt_is_the_one_with_the_highest_number() -> None:
    assert last_of([attempt(ONE, 9), attempt(ONE, 10), attempt(TWO, 11)], ONE) == attempt(ONE, 10)
    assert last_of([], ONE) is None


def test_an_id_its_beginning_and_a_name_are_found() -> None:
    there = [attempt(ONE, 1), attempt(ONE, 2), attempt("b" * 12, 1, "other")]
    assert find(there, f"{ONE}-1").number == 1
    assert find(there, ONE).number == 2
    assert find(there, "aaa").number == 2
    assert find(there, "other").job_id == "b" * 12


def test_what_is_not_there_or_is_not_clear_is_said() -> None:
    with pytest.raises(SpecError, match="hfray has submitted none"):
        find([], "trial")
    with pytest.raises(SpecError, match=f"the latest there are {ONE}-1"):
        find([attempt(ONE, 1)], "tril")
    with pytest.raises(SpecError, match=f"several jobs are meant: {ONE}-1, {TWO}-3"):
        find([attempt(ONE, 1), attempt(TWO, 2), attempt(TWO, 3)], "trial")


def test_of_packages_that_cannot_be_installed_only_the_installers_word_is_told() -> None:
    lines = ["runtime_env setup failed", "Traceback (most recent call last):", "    ERROR: No matching distribution: x"]
    failed = attempts_in([details(f"{ONE}-1", 1, message="\n".join(lines))])[0]
    assert failed.message == "the packages cannot be installed there: No matching distribution: x"
    for word in ("it was stopped", "Job entrypoint command failed, last available logs:\nERROR: the job's own"):
        assert attempts_in([details(f"{ONE}-1", 1, message=word)])[0].message == word
