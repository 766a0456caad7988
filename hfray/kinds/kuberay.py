"""`hfray render kuberay`: the manifests that do on Kubernetes what `hfray run`, `hfray serve` and a Ray cluster do.

Knows the fields of KubeRay's RayJob, RayService and RayCluster (v1, KubeRay 1.7) and what a spec says; talks to no
cluster. KubeRay makes the pods, KubeRay's autoscaler chooses how many, KubeRay makes the token that Ray asks for.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hfray
from hfray.errors import SpecError
from hfray.kinds.kuberay_paths import Volume, check_endpoint_paths, check_job_paths
from hfray.kinds.kuberay_pods import (
    CREDENTIALS,
    Common,
    Manifest,
    Size,
    container_security,
    head_group,
    size_of,
    worker_group,
)
from hfray.spec.endpoint import LOOPBACK, EndpointSpec, GatewaySpec
from hfray.spec.export import ExportJob
from hfray.spec.kinds import Job
from hfray.spec.labels import has_labels
from hfray.spec.load import Citation, citation
from hfray.spec.sections import WorkersSpec
from hfray.spec.serve_file import ServeFile
from hfray.spec.shape import Keys
from hfray.spec.train import TrainJob
from hfray.spec.yaml_lines import dump, dump_blocks
from hfray.training.secret import KEY_FILE_VARIABLE
from hfray.types import Strict

KUBERAY = "1.7"
IMAGE = f"hfray:{hfray.__version__}"
JOB_FILE = "/etc/hfray/job/job.yaml"
KEYS_FILE = "/etc/hfray/keys/keys.yaml"
CHECKPOINT_FOLDER = "/etc/hfray/checkpoint"
CHECKPOINT_SECRET = "hfray-checkpoint-key"  # the name of a Secret
IDLE_S = 300
"""Until a pod that does nothing goes: longer than a new one takes to come and to load a model."""
TTL_S = 300
"""How long a finished job's cluster stays, for somebody who wants to read its logs."""
RETRIES = 3
"""Clusters that a job may have after its first; each goes on with what is missing."""
MAX_NAME_CHARS = 47
"""KubeRay's limit: it appends to the name, and Kubernetes allows 63."""
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


class ClusterShape(Strict):
    """What `--set` may say of a cluster without a job."""

    workers: WorkersSpec = WorkersSpec()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pods run, and of what they are made."""

    name: str | None = None
    namespace: str | None = None
    image: str = IMAGE
    volume: Volume | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """Manifests, and what must be there before they are applied."""

    manifests: Sequence[Manifest]
    needs: Sequence[str]

    def text(self, command: str) -> str:
        """YAML; its first line is the command that makes it."""
        first = [command, f"For KubeRay {KUBERAY}, to be given to `kubectl apply -f`. What must be there before:"]
        lines = "\n".join([*first, *(f"- {need}" for need in self.needs)]).splitlines()
        return "".join(f"# {line}\n" for line in lines) + "---\n".join(
            dump_blocks(manifest) for manifest in self.manifests
        )


def ray_job(job: Job, path: Path, text: str, place: Place, overrides: Sequence[str] = ()) -> Rendered:
    """`hfray run` of a job on a cluster of its own, which goes when the job has ended. text: of the job file.

    Raises SpecError for what would only go wrong on the cluster: paths that pods do not see, a pool without bounds.
    """
    cite = citation(path, overrides)
    check_job_paths(job, cite, place.volume)
    name = _name(place, job.name, cite(("name",)))
    secrets, env, needs = _checkpoint_key(place) if isinstance(job, TrainJob) else ({}, [], [])
    common = Common(place.image, place.volume)
    size, (least, most) = _shape(job, cite)
    spec = {
        "entrypoint": f"hfray run {JOB_FILE}",
        # KubeRay itself submits: no third pod, and when the head was lost it submits to the new one.
        "submissionMode": "HTTPMode",
        "backoffLimit": RETRIES,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": TTL_S,
        "rayClusterSpec": _cluster_spec(
            head_group(Common(place.image, place.volume, secrets), {}, env=env, job=f"{name}-job"),
            [worker_group(size, common, min=least, max=most)],
        ),
    }
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(f"{name}-job", place)}
    config["data"] = {posixpath.basename(JOB_FILE): text}
    return Rendered([config, _manifest("RayJob", name, place, spec)], [*needs, *_needs(place)])


def ray_cluster(workers: WorkersSpec, place: Place) -> Rendered:
    """A cluster that stays, for `hfray run` with its RAY_ADDRESS and for jobs that are sent to it."""
    name = _name(place, "hfray", "--name")
    secrets, env, needs = _checkpoint_key(place)
    size = size_of(workers.cpus, workers.gpus, workers.memory_gb)
    most = _most(workers, "--set workers.max")
    _refuse_labels(workers.labels, "--set workers.labels")
    spec = _cluster_spec(
        head_group(Common(place.image, place.volume, secrets), {}, env=env),
        [worker_group(size, Common(place.image, place.volume), min=workers.min, max=most)],
    )
    return Rendered([_manifest("RayCluster", name, place, spec)], [*needs, *_needs(place)])


def ray_service(file: ServeFile, place: Place) -> Rendered:
    """The endpoints of a Ray Serve file. Raises SpecError for a gateway that no Service would reach, and for paths that
    pods do not see."""
    cite = citation(file.path)
    numbers = {app["name"]: number for number, app in enumerate(file.content["applications"])}
    arguments: dict[str, Keys] = {name: ("applications", number, "args") for name, number in numbers.items()}
    name = _name(place, Path(file.path).stem, file.path)
    keys = _keys_of(file.gateway, name, arguments[file.gateway_name], cite)
    for model, endpoint in file.models.items():
        check_endpoint_paths(endpoint, arguments[model], cite, place.volume)
    common = Common(place.image, place.volume, {posixpath.dirname(KEYS_FILE): f"{name}-keys"})
    # Of the gateway in this pod. Not /readyz: a model that is being added would take all others out of the Service.
    probe = {
        "httpGet": {"path": "/healthz", "port": file.gateway.port},
        "periodSeconds": 5,
        "timeoutSeconds": 2,
        "failureThreshold": 1,
    }
    groups = [
        # An update starts the new replicas before it ends the old ones, so there must be room for both.
        worker_group(size, common, min=least, max=2 * most, probe=probe)
        for size, (least, most) in _shapes(file.models).items()
    ]
    spec = {
        "serveConfigV2": dump(_with_keys(file, KEYS_FILE)),
        "rayClusterConfig": _cluster_spec(head_group(common, {"serve": file.gateway.port}), groups),
    }
    made = _kubectl_secret(f"{name}-keys", f"{posixpath.basename(KEYS_FILE)}={keys}", place)
    secret = f"Secret {name}-keys, the file that `hfray keys add` makes: {made}"
    return Rendered([_manifest("RayService", name, place, spec)], [secret, *_needs(place)])


def _keys_of(gateway: GatewaySpec, name: str, args: Keys, cite: Citation) -> str:
    if gateway.keys is None:
        raise cite.error(
            {
                (*args, "keys"): "missing: without keys the gateway listens on loopback, where no Service reaches it; "
                "make some with `hfray keys add --file keys.yaml --id NAME` and write `host: 0.0.0.0` and "
                f"`keys: keys.yaml`; pods get them from the Secret {name}-keys"
            }
        )
    if gateway.host in LOOPBACK:
        raise cite.error(
            {(*args, "host"): f"{gateway.host} is loopback, where no Service reaches it; write `host: 0.0.0.0`"}
        )
    return gateway.keys


def _with_keys(file: ServeFile, keys: str) -> Mapping[str, Any]:
    """The file's content, with the keys where pods have them."""
    applications = [
        {**app, "args": {**app["args"], "keys": keys}} if app["name"] == file.gateway_name else app
        for app in file.content["applications"]
    ]
    return {**file.content, "applications": applications}


def _shape(job: Job, cite: Citation) -> tuple[Size, tuple[int, int]]:
    """The pod of a job's worker, and how many workers."""
    workers = job.workers
    _refuse_labels(workers.labels, cite(("workers", "labels")))
    size = size_of(workers.cpus, workers.gpus, workers.memory_gb)
    if isinstance(job, ExportJob):
        return size, (1, 1)  # one task
    if isinstance(job, TrainJob):
        return size, (job.workers.min, job.workers.max or job.workers.min)
    return size, (job.workers.min, _most(job.workers, cite(("workers", "max"))))


def _shapes(models: Mapping[str, EndpointSpec]) -> dict[Size, tuple[int, int]]:
    """The sizes of the models' replicas, and how many of each; the gateway takes no CPU and runs beside them."""
    shapes: dict[Size, tuple[int, int]] = {}
    for spec in models.values():
        size = size_of(spec.resources.cpus, spec.resources.gpus, spec.resources.memory_gb)
        least, most = shapes.get(size, (0, 0))
        shapes[size] = (least + spec.replicas.min, most + spec.replicas.max)
    return shapes


def _refuse_labels(labels: Mapping[str, str], where: str) -> None:
    if not has_labels({}, labels):
        raise SpecError(
            f"{where}: {dict(labels)}: pods have no labels of Ray's, so none would do the work; leave it out, and "
            "choose nodes by a nodeSelector in the manifest"
        )


def _most(workers: WorkersSpec, where: str) -> int:
    if workers.max is None:
        raise SpecError(
            f"{where}: missing; a job takes what its cluster has, and this cluster grows with the job: "
            "say how far, such as --set workers.max=8"
        )
    return workers.max


def _cluster_spec(head: Manifest, groups: Sequence[Manifest]) -> Manifest:
    return {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": IDLE_S,
            "securityContext": container_security(),
        },
        "headGroupSpec": head,
        "workerGroupSpecs": list(groups),
    }


def _needs(place: Place) -> list[str]:
    needs = [f"Secret {CREDENTIALS}, if the hub or a store asks who you are: its keys are variables, such as HF_TOKEN"]
    if place.volume is not None:
        needs.append(f"PersistentVolumeClaim {place.volume.claim}, which all pods can mount at once (ReadWriteMany)")
    return needs


def _checkpoint_key(place: Place) -> tuple[dict[str, str], list[Manifest], list[str]]:
    """Another head must be able to go on with a training, so the key of its checkpoints outlives the head."""
    made = f"openssl rand -hex 32 | {_kubectl_secret(CHECKPOINT_SECRET, 'key=/dev/stdin', place)}"
    return (
        {CHECKPOINT_FOLDER: CHECKPOINT_SECRET},
        [{"name": KEY_FILE_VARIABLE, "value": f"{CHECKPOINT_FOLDER}/key"}],
        [f"Secret {CHECKPOINT_SECRET}, which seals training checkpoints: {made}"],
    )


def _kubectl_secret(name: str, file: str, place: Place) -> str:
    words = ["kubectl", "create", "secret", "generic", name, f"--from-file={file}"]
    return shlex.join(words if place.namespace is None else [*words, "--namespace", place.namespace])


def _manifest(kind: str, name: str, place: Place, spec: Manifest) -> Manifest:
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": _metadata(name, place), "spec": spec}


def _metadata(name: str, place: Place) -> Manifest:
    return {"name": name} if place.namespace is None else {"name": name, "namespace": place.namespace}


def _name(place: Place, name: str, where: str) -> str:
    """`place.name`, or another name as Kubernetes takes it."""
    if place.name is not None:
        name, where = place.name, "--name"
    else:
        name = re.sub(r"[._]+", "-", name)
    if len(name) > MAX_NAME_CHARS or not _NAME.fullmatch(name):
        raise SpecError(
            f"{where}: {name}: KubeRay takes {MAX_NAME_CHARS} lower-case letters, digits and dashes, a letter "
            "first; give another with --name"
        )
    return name
