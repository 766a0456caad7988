"""What is decided before a cluster is asked, and what its answers mean. The cluster itself: tests/promises."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hfray.errors import EngineError, SpecError
from hfray.submit.submission import ClusterJobs

WHERE = "http://head:8265"


@pytest.mark.parametrize(
    ("version", "fits"), [("2.60.0", True), ("2.61.0rc1", True), ("3.0.0", True), ("2.59.1", False)]
)
def test_a_ray_that_is_too_old_is_refused(version: str, fits: bool) -> None:
    jobs = ClusterJobs(SimpleNamespace(_server_ray_version=version), WHERE)
    if fits:
        jobs.check_version()
        return
    with pytest.raises(SpecError, match=rf"runs Ray {version}, and hfray needs 2\.60 or newer"):
        jobs.check_version()


class Ill:
    """A dashboard that answers, but not what was asked."""

    def list_jobs(self) -> Any:
        raise RuntimeError("Request failed with status code 500: Traceback (most recent call last):\\nOSError: full.")

    def get_job_info(self, submission_id: str) -> Any:
        raise RuntimeError("Request failed with status code 404: there is none")


def test_an_answer_that_is_none_is_the_operators_not_a_mistake_of_ours() -> None:
    with pytest.raises(EngineError, match=r"http://head:8265: the cluster's dashboard could not answer: OSError: full"):
        ClusterJobs(Ill(), WHERE).attempts()
    assert ClusterJobs(Ill(), WHERE).attempt("aaaaaaaaaaaa-1") is None
