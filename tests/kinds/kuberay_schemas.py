"""The operator's own schemas, strict: Kubernetes drops a field that a schema does not have, and says nothing."""

from __future__ import annotations

import functools
import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

DATA = Path(__file__).parent / "data" / "kuberay-crds.json.gz"
_METADATA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}},
}
CONFIG_MAP = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "data"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"enum": ["v1"]},
        "kind": {"enum": ["ConfigMap"]},
        "metadata": _METADATA,
        "data": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 1 << 20}},
    },
}


@functools.cache
def schemas() -> dict[str, Any]:
    """Kind to JSON Schema."""
    found: dict[str, Any] = json.loads(gzip.decompress(DATA.read_bytes()))
    for schema in found.values():
        schema["properties"]["metadata"] = _METADATA  # the operator leaves it to Kubernetes
        _close(schema)
    return {**found, "ConfigMap": CONFIG_MAP}


def _close(schema: Any) -> None:
    """No field but those that are named."""
    if isinstance(schema, list):
        for each in schema:
            _close(each)
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    for each in schema.values():
        _close(each)


def problems(manifest: Mapping[str, Any]) -> list[str]:
    """What the operator's schema, and the rules that its code has beside it, say against a manifest."""
    validator = jsonschema.Draft4Validator(schemas()[manifest["kind"]])
    found = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(dict(manifest))]
    return found or [*_refused_by_the_operator(manifest)]


def _refused_by_the_operator(manifest: Mapping[str, Any]) -> list[str]:
    """controllers/ray/utils/validation.go of the same release, as far as it bears on what hfray writes."""
    name, kind, spec = manifest["metadata"]["name"], manifest["kind"], manifest.get("spec", {})
    found = []
    limit = 253 if kind == "ConfigMap" else 53 if kind == "RayCluster" else 47
    if len(name) > limit or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        found.append(f"name {name}")
    if kind == "ConfigMap":
        return found
    cluster = {"RayCluster": spec, "RayJob": spec.get("rayClusterSpec"), "RayService": spec.get("rayClusterConfig")}[
        kind
    ]
    if cluster["authOptions"]["mode"] == "token" and tuple(map(int, cluster["rayVersion"].split("."))) < (2, 52, 0):
        found.append("token authentication needs Ray 2.52")
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        found.append("ttlSecondsAfterFinished needs shutdownAfterJobFinishes")
    if not cluster["enableInTreeAutoscaling"] or cluster["autoscalerOptions"]["version"] != "v2":
        found.append("not scaled by autoscaler v2")
    head, groups = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    if len({group["groupName"] for group in groups}) != len(groups):
        found.append("two groups of one name")
    for group in [head, *groups]:
        if group.get("resources") and group["rayStartParams"].keys() & {"num-cpus", "num-gpus", "memory", "resources"}:
            found.append("resources given twice")
        if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            found.append("autoscaler v2 needs restartPolicy Never")
    found += [
        f"{group['groupName']}: replicas"
        for group in groups
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    ]
    ports = {port["name"] for port in head["template"]["spec"]["containers"][0]["ports"]}
    if kind == "RayService" and "serve" not in ports:
        found.append("no Service without a port of the head named serve")
    return found
