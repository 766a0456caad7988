"""Where a job names files, and which of them lie on a disk. Knows the keys that hold paths; opens no file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hfray.data.urls import parse_url
from hfray.spec.kinds import Job, inputs_of
from hfray.spec.shape import Keys
from hfray.spec.train import TrainJob


class JobPath(NamedTuple):
    """One path that a job or an endpoint names."""

    keys: Keys
    path: str
    may_be_hub: bool
    """Whether the key takes ids of the hub too."""

    @property
    def on_disk(self) -> bool:
        """Whether it is a path of a disk: no URL of a store, no package, and no id of the hub, which has at most one
        slash and is no folder here (as `models/source.py` and `data/huggingface.py` see it)."""
        if self.path.startswith("package:") or parse_url(self.path)[0] != "file":
            return False
        is_hub_id = (
            self.path.count("/") < 2 and not self.path.startswith((".", "/", "~")) and not Path(self.path).is_dir()
        )
        return not (self.may_be_hub and is_hub_id)


def paths_of(job: Job) -> Iterator[JobPath]:
    """All paths of a job, in the order of its sections."""
    yield from model_paths(job.model)
    for key, spec in inputs_of(job).items():
        keys = (*key.split("."), "path")
        yield from (JobPath(keys, path, spec.format == "huggingface") for path in spec.path)
    yield JobPath(("output", "path"), job.output.path, False)
    if isinstance(job, TrainJob) and isinstance(job.deepspeed, str) and job.deepspeed != "auto":
        yield JobPath(("deepspeed",), job.deepspeed, False)


def model_paths(model: Any) -> Iterator[JobPath]:
    """Of any kind's section `model`, which may be absent."""
    for key in ("path", "adapter"):
        path = getattr(model, key, None)
        if path is not None:
            yield JobPath(("model", key), path, True)
    for name, adapter in getattr(model, "adapters", {}).items():
        yield JobPath(("model", "adapters", name), adapter.path, True)
