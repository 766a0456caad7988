"""A job as a cluster reads it: paths absolute, files of this machine inside it, and the name that it has there. Knows
specs and paths; not Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hfray.data.urls import above_glob, parse_url
from hfray.kinds.job_paths import paths_of
from hfray.spec.fields import fingerprint, identity_of
from hfray.spec.kinds import Job
from hfray.spec.shape import Keys

ID_CHARS = 12
"""Of the fingerprint: 48 bits, too many for two jobs of a cluster to meet."""


@dataclass(frozen=True)
class Resolved:
    """A job that means the same on every machine that sees the same paths."""

    job: Job
    reads: tuple[str, ...]
    """Local paths that all nodes must see; of a glob the folder above it."""
    output: str | None
    """The local output folder, which all nodes must see too; None for one in an object store."""

    @property
    def id(self) -> str:
        """What every submission of this job shares: of what the answers depend on, and where they go."""
        identity = identity_of(self.job) | {"output": self.job.output.path}
        return fingerprint(identity)[:ID_CHARS]


def resolved(job: Job) -> Resolved:
    """Raises SpecError for a file of this machine that the job needs and that cannot be read."""
    values = as_given(job)
    found = [each for each in paths_of(job) if each.on_disk]
    for keys in dict.fromkeys(each.keys for each in found):
        _make_absolute(values, keys, {each.path: parse_url(each.path)[2] for each in found if each.keys == keys})
    if isinstance(values.get("deepspeed"), str) and values["deepspeed"] != "auto":
        from hfray.training.deepspeed import read_config

        values["deepspeed"] = read_config(values["deepspeed"])
    done = type(job).model_validate(values)
    here = [each for each in paths_of(done) if each.on_disk]
    reads = dict.fromkeys(above_glob(each.path) for each in here if each.keys[0] != "output")
    return Resolved(done, tuple(reads), next((each.path for each in here if each.keys[0] == "output"), None))


def as_given(job: Job) -> dict[str, Any]:
    """What the job says, without the defaults of what it does not say: some of those follow from what it says."""
    return job.model_dump(mode="json", exclude_unset=True)


def _make_absolute(values: dict[str, Any], keys: Keys, absolute: Mapping[str, str]) -> None:
    """Replaces a path, each of a list of them, or that of an adapter. Links stay: the cluster may have others."""
    *sections, last = keys
    place: Any = values
    for key in sections:
        place = place[key]
    value = place[last]
    if isinstance(value, dict):
        place, last, value = value, "path", value["path"]
    if isinstance(value, list):
        place[last] = [absolute.get(path, path) for path in value]
    else:
        place[last] = absolute.get(value, value)
