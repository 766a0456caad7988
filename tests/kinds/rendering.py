"""Manifests made in tests: of a job, of a Ray Serve file; and their pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hfray.kinds.kuberay import Place, Rendered, ray_job, ray_service
from hfray.kinds.kuberay_paths import Volume
from hfray.spec.load import job_text, load_job
from hfray.spec.serve_file import load_serve_file

DATA = Place(volume=Volume("models", "/data"))
SCORE = """
kind: score
name: masks_of.words
model: {path: google-bert/bert-base-uncased}
task: fill-mask
input: {path: s3://bucket/masks.txt}
output: {path: s3://bucket/out}
workers: {min: 1, max: 5, cpus: 2, memory_gb: 6}
"""
SERVE = """
proxy_location: Disabled
applications:
  - name: gateway
    import_path: hfray.serving.app:gateway
    args: {host: 0.0.0.0, port: 8080, keys: my keys.yaml}
  - name: small
    import_path: hfray.serving.app:model
    route_prefix: null
    args: {model: {path: org/small}, task: fill-mask, replicas: {min: 0, max: 3}}
  - name: large
    import_path: hfray.serving.app:model
    route_prefix: null
    args:
      model: {path: org/large}
      task: text-generation
      resources: {cpus: 1, gpus: 0.5, memory_gb: 10}
      replicas: {min: 1, max: 3}
  - name: other
    import_path: hfray.serving.app:model
    route_prefix: null
    args: {model: {path: org/other}, task: fill-mask, replicas: 2}
"""


def job_of(path: Path, *overrides: str, place: Place = DATA) -> Rendered:
    return ray_job(load_job(path, overrides), path, job_text(path, overrides), place, overrides)


def written(folder: Path, text: str, name: str = "job.yaml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def groups(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    spec = manifest["spec"]
    cluster = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [group["template"]["spec"] for group in groups(manifest)]


def service_of(folder: Path, text: str = SERVE, place: Place | None = None) -> Rendered:
    return ray_service(load_serve_file(written(folder, text, "front.yaml")), place or Place())
