"""Pods: how large, how many, and that none is wasted."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfray.kinds.kuberay import Place
from hfray.kinds.kuberay_pods import Size, size_of
from tests.kinds.rendering import SCORE, groups, job_of, written


def test_the_pool_becomes_a_group(tmp_path: Path) -> None:
    (_, job) = job_of(written(tmp_path, SCORE), place=Place(image="registry/hfray:2")).manifests
    group = groups(job)[1]
    assert (group["minReplicas"], group["replicas"], group["maxReplicas"]) == (1, 1, 5)
    (container,) = group["template"]["spec"]["containers"]
    assert container["image"] == "registry/hfray:2"
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "10Gi"}
    assert "tolerations" not in group["template"]["spec"]


def test_gpus_are_asked_for_and_tolerated(tmp_path: Path) -> None:
    path = written(tmp_path, SCORE)
    (_, job) = job_of(path, "workers.gpus=0.5", "workers.max=5", place=Place()).manifests
    group = groups(job)[1]
    assert (group["minReplicas"], group["maxReplicas"]) == (1, 3)  # two workers in a pod
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "19Gi", "nvidia.com/gpu": "1"}
    assert [each["key"] for each in group["template"]["spec"]["tolerations"]] == ["nvidia.com/gpu"]


@pytest.mark.parametrize(
    ("worker", "pod"),
    [
        ((1, 0, 3), Size(1, 0, 6, 1)),
        ((0.25, 0, 1), Size(1, 0, 8, 4)),
        ((0, 0, 1), Size(1, 0, 3, 1)),
        ((2.5, 0, None), Size(3, 0, 8, 1)),
        ((1, 1, 20), Size(1, 1, 30, 1)),
        ((1, 0.3, 2), Size(3, 1, 10, 3)),
        ((1, 0.2, 2), Size(5, 1, 16, 5)),
        ((1, 0.1, 1), Size(10, 1, 16, 10)),
        ((4, 4, 30), Size(4, 4, 45, 1)),
    ],
)
def test_a_pod_holds_whole_workers(worker: tuple[float, float, float | None], pod: Size) -> None:
    assert size_of(*worker) == pod
    assert pod.memory_gb * 0.7 >= pod.num_workers * (worker[2] or 4)
