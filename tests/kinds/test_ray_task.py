"""What a worker takes, in Ray's words. That a task is waited for under a lease is shown by the kinds that are one."""

from __future__ import annotations

from hfray.kinds.ray_task import resources
from hfray.spec.sections import WorkersSpec


def test_resources_are_ray_options() -> None:
    assert resources(WorkersSpec()) == {
        "num_cpus": 1.0, "num_gpus": None, "memory": None, "label_selector": None,
    }  # fmt: skip
    whole = WorkersSpec(cpus=2, gpus=0.5, memory_gb=1.5, labels={"ray.io/market-type": "spot"})
    assert resources(whole) == {
        "num_cpus": 2.0, "num_gpus": 0.5, "memory": 1.5 * 2**30, "label_selector": {"ray.io/market-type": "spot"},
    }  # fmt: skip
