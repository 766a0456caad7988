"""The submissions of one job on a cluster: `<id>-<number>`, one after another. Knows names and states; not how a
cluster is asked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hfray.errors import SpecError

ONGOING = frozenset({"PENDING", "RUNNING"})
SUCCEEDED = "SUCCEEDED"
_ID = re.compile(r"([0-9a-f]{12})-([1-9][0-9]*)")
_NOT_SET_UP = "runtime_env setup failed"
"""How Ray's word begins of a job that never ran."""
_INSTALLER = "ERROR:"
"""How a line of pip's begins that says what is wrong."""


@dataclass(frozen=True)
class Attempt:
    """One submission of a job, as the cluster tells of it."""

    id: str
    job_id: str
    number: int
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    message: str = ""
    exit_code: int | None = None
    started_at: float | None = None
    """Seconds since 1970, as `ended_at`."""
    ended_at: float | None = None
    about: dict[str, str] = field(default_factory=dict)
    """What it was submitted with: name, kind, output, hfray (the version), settings."""

    @property
    def ongoing(self) -> bool:
        return self.status in ONGOING

    @property
    def name(self) -> str:
        return self.about.get("name", "")


def attempts_in(details: Iterable[Any]) -> list[Attempt]:
    """Those among a cluster's jobs that hfray submitted, oldest first. details: Ray's JobDetails."""
    found = []
    for each in details:
        match = _ID.fullmatch(each.submission_id or "")
        if match is None or "hfray" not in (each.metadata or {}):
            continue
        found.append(
            Attempt(
                each.submission_id, match[1], int(match[2]), each.status.value,
                why_ended(each.message), each.driver_exit_code, _seconds(each.start_time), _seconds(each.end_time),
                dict(each.metadata),
            )
        )  # fmt: skip
    return sorted(found, key=lambda attempt: (attempt.started_at or 0.0, attempt.number))


def last_of(attempts: Iterable[Attempt], job_id: str) -> Attempt | None:
    """The latest attempt of a job."""
    mine = [attempt for attempt in attempts if attempt.job_id == job_id]
    return max(mine, key=lambda attempt: attempt.number, default=None)


def find(attempts: Sequence[Attempt], wanted: str) -> Attempt:
    """What a person means: a submission id, the beginning of one, or a job's name (its latest attempt then).

    Raises SpecError where there is none, or where several jobs are meant.
    """
    exact = [attempt for attempt in attempts if attempt.id == wanted]
    meant = exact or [attempt for attempt in attempts if attempt.name == wanted or attempt.id.startswith(wanted)]
    jobs = dict.fromkeys(attempt.job_id for attempt in meant)
    if not jobs:
        known = ", ".join(f"{attempt.id} ({attempt.name})" for attempt in list(attempts)[-3:][::-1])
        there = f"the latest there are {known}" if known else "hfray has submitted none to this cluster"
        raise SpecError(f"{wanted}: there is no such job; {there}")
    if len(jobs) > 1:
        several = ", ".join(str(last_of(meant, job).id) for job in jobs)  # type: ignore[union-attr]
        raise SpecError(f"{wanted}: several jobs are meant: {several}; give the id of one")
    last = last_of(meant, next(iter(jobs)))
    return exact[0] if exact or last is None else last


def why_ended(message: str | None) -> str:
    """What Ray says of a job that ended. Of packages that could not be installed only what the installer said: around
    it stands Ray's traceback. What a job itself has printed may look the same, and is left as it is."""
    said = [line.strip() for line in (message or "").splitlines() if line.strip().startswith(_INSTALLER)]
    if said and (message or "").startswith(_NOT_SET_UP):
        return f"the packages cannot be installed there: {said[-1].removeprefix(_INSTALLER).strip()}"
    return message or ""


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None
