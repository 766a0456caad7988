"""What a worker takes in Ray's words, and one task of Ray that does a whole job, waited for while the lease is held.
Knows Ray; not what the task does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar

from hfray.data.lease import Lease
from hfray.kinds.ray_errors import as_hfray_error

POLL_S = 0.5
MAX_RETRIES = 3
P = ParamSpec("P")
T = TypeVar("T")


class Needs(Protocol):
    """What one worker takes; `spec.sections.WorkersSpec` and the like."""

    @property
    def cpus(self) -> float: ...
    @property
    def gpus(self) -> float: ...
    @property
    def memory_gb(self) -> float | None: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


def resources(worker: Needs) -> dict[str, Any]:
    """Ray's options for an actor or a task."""
    return {
        "num_cpus": worker.cpus,
        "num_gpus": worker.gpus or None,
        "memory": None if worker.memory_gb is None else worker.memory_gb * 2**30,
        "label_selector": dict(worker.labels) or None,
    }


def run_task(worker: Needs, lease: Lease, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function of a module gives, called on a worker; called again if the worker is lost.

    Raises LeaseHeld when another run has taken the output over meanwhile, and what the function raised.
    """
    import ray

    answer = ray.remote(**resources(worker), max_retries=MAX_RETRIES)(function).remote(*args, **kwargs)
    try:
        while not ray.wait([answer], timeout=POLL_S)[0]:
            lease.check()
        found: T = ray.get(answer)
    except Exception as error:
        raise as_hfray_error(error) from error
    return found
