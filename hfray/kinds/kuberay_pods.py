"""Pods of a Ray cluster on Kubernetes: how large a worker's is, how many of them, and what every pod has. Knows the
fields of a pod and of a KubeRay worker group; not jobs, not endpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hfray.kinds.kuberay_paths import Volume

USER_ID = 1000
"""Of the image's user (deploy/Dockerfile)."""
CREDENTIALS = "hfray-credentials"
"""Secret whose keys become variables of every pod (HF_TOKEN, a store's own); pods start without it too."""
WORKER_GB = 4.0
"""Memory of a worker that does not say it: a model of a few hundred million parameters, two shards, Python."""
OBJECT_STORE_SHARE = 0.3
"""Of a pod's memory Ray keeps this much for objects by default."""
RAY_GB = 1.0
"""For Ray's own processes in a pod."""
HEAD = {"cpu": "2", "memory": "8Gi"}
"""Ray's control plane, and the driver of a job, which imports torch but loads no weights."""

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """A pod, and how many workers (or replicas) it holds."""

    cpus: int
    gpus: int
    memory_gb: int
    num_workers: int

    @property
    def group(self) -> str:
        """A name for a group of such pods."""
        return f"cpu{self.cpus}" + (f"-gpu{self.gpus}" if self.gpus else "") + f"-{self.memory_gb}gb"


def size_of(cpus: float, gpus: float, memory_gb: float | None) -> Size:
    """The smallest pod that wastes nothing: whole CPUs and GPUs, so that workers with fractions share one."""
    share = gpus if gpus else cpus
    num_workers = math.floor(1 / share + 1e-9) if 0 < share < 1 else 1
    needed_gb = num_workers * (memory_gb or WORKER_GB)
    return Size(
        cpus=max(1, math.ceil(num_workers * cpus - 1e-9)),
        gpus=math.ceil(num_workers * gpus - 1e-9),
        memory_gb=math.ceil((needed_gb + RAY_GB) / (1 - OBJECT_STORE_SHARE) - 1e-9),
        num_workers=num_workers,
    )


@dataclass(frozen=True, slots=True)
class Common:
    """What all pods of a cluster have in common."""

    image: str
    volume: Volume | None = None
    secrets: Mapping[str, str] | None = None
    """Mounted as files: where, and which Secret."""


def worker_group(size: Size, common: Common, *, min: int, max: int, probe: Manifest | None = None) -> Manifest:
    """`min` to `max` workers, in as many pods as they need."""
    least, most = math.ceil(min / size.num_workers), math.ceil(max / size.num_workers)
    resources = {"cpu": str(size.cpus), "memory": f"{size.memory_gb}Gi"}
    if size.gpus:
        resources["nvidia.com/gpu"] = str(size.gpus)
    container = _container("ray-worker", common, resources)
    if probe is not None:
        container["readinessProbe"] = probe
    # Only the head's autoscaler talks to Kubernetes.
    spec: Manifest = {"automountServiceAccountToken": False, **_pod(common, container)}
    if size.gpus:
        spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {
        "groupName": size.group,
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": most,
        "rayStartParams": {},
        "template": {"spec": spec},
    }


def head_group(common: Common, ports: Mapping[str, int], *, env: Sequence[Manifest] = (), job: str = "") -> Manifest:
    """The head, which runs no workers; `job` is the ConfigMap with the job file, mounted at /etc/hfray/job."""
    container = _container("ray-head", common, HEAD)
    # Named ports are all that the head's Service offers: without this list it would offer Ray Client's too.
    named = {"gcs-server": 6379, "dashboard": 8265, **ports}
    container["ports"] = [{"name": name, "containerPort": port} for name, port in named.items()]
    if env:
        container["env"] = list(env)
    spec = _pod(common, container)
    if job:
        container.setdefault("volumeMounts", []).append({"name": "job", "mountPath": "/etc/hfray/job"})
        spec.setdefault("volumes", []).append({"name": "job", "configMap": {"name": job}})
    return {"serviceType": "ClusterIP", "rayStartParams": {"num-cpus": "0"}, "template": {"spec": spec}}


def container_security() -> Manifest:
    """What a container may not do, as the `restricted` Pod Security Standard asks for it."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _container(name: str, common: Common, resources: Mapping[str, str]) -> Manifest:
    container: Manifest = {"name": name, "image": common.image}
    if common.volume is not None:
        container["workingDir"] = common.volume.path
    container["envFrom"] = [{"secretRef": {"name": CREDENTIALS, "optional": True}}]
    # Equal, so that the pod is not the first to be evicted, and Ray counts what Kubernetes gives.
    container["resources"] = {"requests": dict(resources), "limits": dict(resources)}
    container["securityContext"] = container_security()
    return container


def _pod(common: Common, container: Manifest) -> Manifest:
    mounts: list[Manifest] = []
    volumes: list[Manifest] = []
    if common.volume is not None:
        mounts.append({"name": "shared", "mountPath": common.volume.path})
        volumes.append({"name": "shared", "persistentVolumeClaim": {"claimName": common.volume.claim}})
    for number, (place, secret) in enumerate((common.secrets or {}).items()):
        name = f"secret-{number}"
        mounts.append({"name": name, "mountPath": place, "readOnly": True})
        # 0440: for root and the pod's group, which `fsGroup` makes ours.
        volumes.append({"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}})
    spec: Manifest = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    if mounts:
        container["volumeMounts"] = mounts
        spec["volumes"] = volumes
    return spec
