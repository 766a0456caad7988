"""Which paths of a job or an endpoint every pod of a cluster sees. Knows one volume that all pods mount; opens nothing
but the file that names the paths."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from hfray.errors import SpecError
from hfray.kinds.job_paths import JobPath, model_paths, paths_of
from hfray.spec.endpoint import EndpointSpec
from hfray.spec.kinds import Job
from hfray.spec.load import Citation
from hfray.spec.shape import Keys

_CLAIM = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_OURS = "/etc/hfray"


@dataclass(frozen=True, slots=True)
class Volume:
    """A PersistentVolumeClaim, and where all pods mount it; relative paths begin there."""

    claim: str
    path: str

    def holds(self, path: str) -> bool:
        """Whether a path, taken from the mount where it is relative, is on the volume."""
        full = posixpath.normpath(posixpath.join(self.path, path))
        return not path.startswith("~") and (full == self.path or full.startswith(self.path + "/"))


def parse_volume(text: str) -> Volume:
    """`CLAIM:PATH`. Raises SpecError."""
    claim, _, path = text.partition(":")
    place = posixpath.normpath(path)
    usable = path.startswith("/") and place not in ("/", "//") and not f"{place}/".startswith((_OURS + "/", "//"))
    if not _CLAIM.fullmatch(claim) or not usable:
        raise SpecError(
            f"--volume {text}: write the claim and the folder where pods mount it, such as models:/data"
            + (f"; {_OURS} is taken" if f"{place}/".startswith(_OURS + "/") else "")
        )
    return Volume(claim, place)


def check_job_paths(job: Job, cite: Citation, volume: Volume | None) -> None:
    """Raises SpecError, a line for each path that only this machine has."""
    _check(paths_of(job), (), cite, volume)


def check_endpoint_paths(spec: EndpointSpec, place: Keys, cite: Citation, volume: Volume | None) -> None:
    """The same for the arguments of a model; `place` is where they stand in the file."""
    found = [*model_paths(spec.model)]
    if spec.adapters_folder is not None:
        found.append(JobPath(("adapters_folder",), spec.adapters_folder, False))
    _check(found, place, cite, volume)


def _check(found: Iterable[JobPath], place: Keys, cite: Citation, volume: Volume | None) -> None:
    wrong = {}
    for each in found:
        if not each.on_disk or (volume is not None and volume.holds(each.path.removeprefix("file://"))):
            continue
        if volume is None:
            what = "only this machine has it; write a URL (s3://, gs://, az://), or mount a volume: --volume CLAIM:PATH"
        else:
            what = f"not on the volume, which pods have at {volume.path}; name a folder below it, or one relative to it"
        wrong[(*place, *each.keys)] = f"{each.path}: {what}"
    if wrong:
        raise cite.error(wrong)
