"""How much memory a training worker will have, before there is one. Knows Ray's nodes; not what is done with it."""

from __future__ import annotations

import os
from typing import Any

from hfray.errors import EngineError
from hfray.kinds.cluster import Cluster
from hfray.kinds.ray_errors import as_hfray_error
from hfray.kinds.ray_task import MAX_RETRIES, resources
from hfray.spec.sections import WorkersSpec

PROBE_TIMEOUT_S = 600.0
"""A GPU node may have to be started first."""


def worker_memory(cluster: Cluster, workers: WorkersSpec, num_workers: int) -> tuple[int, int]:
    """Bytes of a worker's device, and its share of the host's where the device is a GPU.

    A fraction of a GPU has that fraction of its memory. On a CPU: what the job reserves (`workers.memory_gb`), or the
    smallest node's memory over the workers that fit on it.
    """
    import ray

    reserved = None if workers.memory_gb is None else int(workers.memory_gb * 2**30)
    if workers.gpus:
        task = ray.remote(**resources(workers), max_retries=MAX_RETRIES)(_gpu_and_host)
        try:
            device, host, cpus = ray.get(task.remote(), timeout=PROBE_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError:
            raise EngineError(
                f"workers.gpus: no worker with {workers.gpus:g} GPU could be started in {PROBE_TIMEOUT_S:.0f} s"
            ) from None
        except Exception as error:
            raise as_hfray_error(error) from error
        share = max(workers.gpus, workers.cpus / max(cpus, 1))
        return int(device * min(1.0, workers.gpus)), reserved or int(host * min(1.0, share))
    if reserved is not None:
        return reserved, 0
    shares = []
    for node in ray.nodes():
        cpus, memory = node["Resources"].get("CPU", 0.0), node["Resources"].get("memory", 0.0)
        if node["Alive"] and cpus and memory:
            fit = int(cpus // workers.cpus) if workers.cpus else num_workers
            shares.append(memory / max(1, min(fit, num_workers)))
    return int(min(shares, default=float(_physical_bytes()))), 0


def _gpu_and_host() -> tuple[int, int, int]:
    """Runs on a worker: bytes of its GPU, bytes of the host, processors of the host."""
    import torch

    if not torch.cuda.is_available():
        raise EngineError("workers.gpus: the worker sees no GPU that torch can use; install torch with CUDA there")
    properties: Any = torch.cuda.get_device_properties(0)
    return int(properties.total_memory), _physical_bytes(), os.cpu_count() or 1


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
