"""From a checked job to one that runs on a cluster, once however often it is submitted. Knows Ray's Jobs API; not the
console.

Ray refuses a submission id that exists. So of several that submit a job at the same time one gets the next number, and
the others find its attempt; the same after a request whose answer was lost.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hfray
from hfray.errors import DataError, EngineError, SpecError
from hfray.kinds.dashboard import UnreachableError, told
from hfray.spec.fields import fingerprint
from hfray.submit import probe, runtime
from hfray.submit.attempts import SUCCEEDED, Attempt, attempts_in, last_of, why_ended
from hfray.submit.resolve import Resolved

MIN_RAY = (2, 60)
TRIES = 4
RETRY_S = 2.0
WAIT_S = 300
POLL_S = 0.5
_NOT_YET = "No available agent"
"""What Ray answers while its head starts."""


@dataclass(frozen=True)
class Request:
    """What is to be run, and how."""

    resolved: Resolved
    flags: tuple[str, ...] = ()
    """Of `hfray run`."""
    again: bool = False
    """Also after an attempt that succeeded."""
    make_env: Callable[[Path], dict[str, Any]] = runtime.runtime_env
    """The runtime environment for a folder that has the job's file."""

    @property
    def settings(self) -> str:
        """Of all that the request says, also of what leaves the answers alone."""
        env = {key: value for key, value in self.make_env(Path()).items() if key in ("pip", "env_vars")}
        return fingerprint({"job": self.resolved.job.model_dump(mode="json"), "flags": self.flags, "env": env})[:12]


@dataclass(frozen=True)
class Submitted:
    """What became of a request."""

    attempt: Attempt
    new: bool
    """Whether it started this attempt; else it runs already, or has succeeded."""
    same: bool = True
    """Whether an attempt that was there has the settings of the request."""


class ClusterJobs:
    """A cluster's jobs, through one of Ray's JobSubmissionClients."""

    def __init__(self, client: Any, where: str) -> None:
        self.client = client
        self.where = where

    def attempts(self) -> list[Attempt]:
        """All that hfray has submitted to it, oldest first."""
        with self._asking():
            return attempts_in(self.client.list_jobs())

    def attempt(self, submission_id: str) -> Attempt | None:
        with self._asking():
            try:
                found = attempts_in([self.client.get_job_info(submission_id)])
            except RuntimeError as error:
                if "404" in str(error):
                    return None
                raise
        return found[0] if found else None

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """What may go wrong while the cluster is asked, in the operator's words."""
        try:
            with told(self.where):
                yield
        except RuntimeError as error:
            raise EngineError(f"{self.where}: the cluster's dashboard could not answer: {_cause(error)}") from None

    def check_version(self) -> None:
        """Raises SpecError for a Ray that hfray does not run on."""
        version = str(getattr(self.client, "_server_ray_version", None) or "")
        parts = tuple(int(each) for each in version.split(".")[:2] if each.isdigit())
        if parts and parts < MIN_RAY:
            least = ".".join(map(str, MIN_RAY))
            raise SpecError(f"{self.where}: the cluster runs Ray {version}, and hfray needs {least} or newer")

    def found(self, request: Request) -> Submitted | None:
        """The attempt that makes it needless to submit the job. Raises SpecError as `submit` does."""
        return _needless(request, last_of(self.attempts(), request.resolved.id))

    def logs(self, attempt: Attempt) -> str:
        """All that it has printed."""
        with self._asking():
            return str(self.client.get_job_logs(attempt.id))

    def submit(self, request: Request) -> Submitted:
        """Starts the job's next attempt, or finds the one that makes that needless.

        Raises SpecError for a job whose last attempt is of a newer hfray, and for what cannot be sent.
        """
        while True:
            last = last_of(self.attempts(), request.resolved.id)
            if (found := _needless(request, last)) is not None:
                return found
            started = self._start(request, last.number + 1 if last else 1)
            if started is not None:
                return Submitted(started, new=True)

    def probe(self, request: Request) -> None:
        """Shows that the nodes see the job's local paths. Raises DataError with the node and the path."""
        resolved, submission_id = request.resolved, f"probe-{uuid.uuid4().hex[:12]}"
        if not resolved.reads and resolved.output is None:
            return
        with tempfile.TemporaryDirectory(prefix="hfray-submit-") as folder:
            probe.write_probe(Path(folder), resolved.reads, resolved.output)
            self._send(submission_id, probe.command(), request.make_env(Path(folder)), {})
        with self._asking():
            info = self._wait(submission_id)
            logs = self.client.get_job_logs(submission_id)
            with suppress(RuntimeError):
                self.client.delete_job(submission_id)
        if info.status.value != SUCCEEDED:
            raise DataError(f"not submitted: {probe.reason_in(logs) if logs.strip() else why_ended(info.message)}")

    def stop(self, attempt: Attempt) -> Attempt:
        """Asks it to end, and waits until it has; what is finished is kept."""
        with self._asking():
            self.client.stop_job(attempt.id)
            self._wait(attempt.id)
        return self.attempt(attempt.id) or attempt

    def _start(self, request: Request, number: int) -> Attempt | None:
        """None where somebody else was quicker."""
        job, submission_id = request.resolved.job, f"{request.resolved.id}-{number}"
        about = {
            "hfray": hfray.__version__, "name": job.name, "kind": job.kind, "output": job.output.path,
            "settings": request.settings,
        }  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="hfray-submit-") as folder:
            runtime.write_job(Path(folder), job)
            env = request.make_env(Path(folder))
            if not self._send(submission_id, runtime.command(request.flags), env, about):
                return None
        return Attempt(submission_id, request.resolved.id, number, "PENDING", started_at=time.time(), about=about)

    def _send(self, submission_id: str, entrypoint: str, env: dict[str, Any], about: dict[str, str]) -> bool:
        """Whether the cluster took it; it has this id already otherwise, maybe of a try whose answer was lost."""
        for tries_left in reversed(range(TRIES)):
            try:
                with told(self.where):
                    self.client.submit_job(
                        entrypoint=entrypoint, submission_id=submission_id, runtime_env=env, metadata=about
                    )
                return True
            except UnreachableError:
                if not tries_left:
                    raise
            except RuntimeError as error:
                if "already exists" in str(error):
                    return False
                if not tries_left or _NOT_YET not in str(error):
                    raise EngineError(f"{self.where}: the cluster did not take the job: {_cause(error)}") from None
            time.sleep(RETRY_S)
        return False

    def _wait(self, submission_id: str) -> Any:
        """Until it has ended. Raises EngineError when that takes too long."""
        ends_at = time.monotonic() + WAIT_S
        while True:
            info = self.client.get_job_info(submission_id)
            if info.status.is_terminal():
                return info
            if time.monotonic() > ends_at:
                self.client.stop_job(submission_id)
                raise EngineError(
                    f"{self.where}: {submission_id} has not ended within {WAIT_S} s; is there room on the head? "
                    "`ray status` there tells"
                )
            time.sleep(POLL_S)


def _needless(request: Request, last: Attempt | None) -> Submitted | None:
    if last is None:
        return None
    _refuse_newer(last)
    if last.ongoing or (last.status == SUCCEEDED and not request.again):
        return Submitted(last, new=False, same=last.about.get("settings") == request.settings)
    return None


def _refuse_newer(last: Attempt) -> None:
    """Its output may have what this version does not know."""
    theirs = last.about.get("hfray", "")
    if _parts(theirs) > _parts(hfray.__version__):
        raise SpecError(
            f"{last.id} was submitted by hfray {theirs}, which is newer than this one ({hfray.__version__}); update it "
            "here, so that the job goes on with what has begun it"
        )


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in version.split(".")[:3] if each.isdigit())


def _cause(error: Exception) -> str:
    """Ray answers with a whole traceback; its last line says it."""
    lines = [line.strip() for line in str(error).replace("\\n", "\n").splitlines() if line.strip(" '\"}.")]
    return lines[-1] if lines else type(error).__name__
