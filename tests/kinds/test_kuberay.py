"""KubeRay manifests: what the operator's schemas say to them, and that they do what the job says."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfray.errors import SpecError
from hfray.kinds.kuberay import ClusterShape, Place, Rendered, ray_cluster, ray_service
from hfray.spec.load import load_job, load_settings
from hfray.spec.serve_file import load_serve_file
from tests.documents import JOBS, ROOT
from tests.kinds.kuberay_schemas import problems
from tests.kinds.rendering import DATA, SCORE, groups, job_of, pods, written


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def everything() -> Iterator[Rendered]:
    for path in JOBS:
        job = load_job(path)
        needs_bound = job.kind in ("score", "tokenize") and job.workers.max is None
        yield job_of(path, *(["workers.max=4"] if needs_bound else []))
    yield ray_service(load_serve_file("serve_configs/chat.yaml"), DATA)
    yield ray_cluster(load_settings(ClusterShape, ["workers.max=2"]).workers, Place(namespace="ml"))


EVERYTHING_IDS = [*(path.stem for path in JOBS), "service", "cluster"]


@pytest.fixture(scope="module")
def all_manifests() -> dict[str, list[dict[str, Any]]]:
    """As they are read again from what is printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        texts = [each.text("hfray render kuberay ...") for each in everything()]
    return {name: list(yaml.safe_load_all(text)) for name, text in zip(EVERYTHING_IDS, texts, strict=True)}


@pytest.mark.parametrize("name", EVERYTHING_IDS)
def test_the_operator_takes_them(name: str, all_manifests: dict[str, list[dict[str, Any]]]) -> None:
    for manifest in all_manifests[name]:
        assert problems(manifest) == []


@pytest.mark.parametrize(
    "place",
    [
        ("spec",),
        ("spec", "rayClusterSpec"),
        ("spec", "rayClusterSpec", "authOptions"),
        ("spec", "rayClusterSpec", "autoscalerOptions"),
        ("spec", "rayClusterSpec", "headGroupSpec"),
        ("spec", "rayClusterSpec", "workerGroupSpecs", 0),
        ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec"),
        ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers", 0),
        ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "securityContext"),
        ("metadata",),
    ],
    ids=lambda place: str(place[-1]),
)
def test_a_typo_would_be_noticed(place: tuple[str | int, ...], tmp_path: Path) -> None:
    """Kubernetes drops what it does not know; here it is found, at any depth."""
    manifest: Any = copy.deepcopy(job_of(written(tmp_path, SCORE), place=Place()).manifests[1])
    assert problems(manifest) == []
    section = manifest
    for key in place:
        section = section[key]
    section["typo"] = "x"
    assert any("typo" in problem for problem in problems(manifest))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "backoffLimit"), "3"),
        (("spec", "submissionMode"), 1),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "tokens"),
        (("spec", "rayClusterSpec", "rayVersion"), "2.51.0"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "minReplicas"), 9),
        (("metadata", "name"), "a.b"),
    ],
    ids=lambda value: str(value[-1]) if isinstance(value, tuple) else "",
)
def test_a_wrong_value_would_be_noticed(place: tuple[str | int, ...], value: Any, tmp_path: Path) -> None:
    manifest: Any = copy.deepcopy(job_of(written(tmp_path, SCORE), place=Place()).manifests[1])
    section = manifest
    for key in place[:-1]:
        section = section[key]
    section[place[-1]] = value
    assert problems(manifest)


@pytest.mark.parametrize("name", EVERYTHING_IDS)
def test_every_pod_is_closed(name: str, all_manifests: dict[str, list[dict[str, Any]]]) -> None:
    manifest = all_manifests[name][-1]
    assert "Ingress" not in yaml.safe_dump(all_manifests[name])
    assert groups(manifest)[0]["serviceType"] == "ClusterIP"
    assert groups(manifest)[0]["rayStartParams"] == {"num-cpus": "0"}
    for pod in pods(manifest):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"] == container["resources"]["requests"]
            assert "client" not in {port["name"] for port in container.get("ports", ())}
    assert all(pod["automountServiceAccountToken"] is False for pod in pods(manifest)[1:])


@pytest.mark.parametrize("name", EVERYTHING_IDS)
def test_no_secret_is_in_them(name: str, all_manifests: dict[str, list[dict[str, Any]]]) -> None:
    for manifest in all_manifests[name]:
        assert manifest["kind"] != "Secret"
        for pod in pods(manifest) if manifest["kind"] != "ConfigMap" else ():
            for container in pod["containers"]:
                assert container["envFrom"] == [{"secretRef": {"name": "hfray-credentials", "optional": True}}]
                assert {each["name"] for each in container.get("env", ())} <= {"HFRAY_CHECKPOINT_KEY_FILE"}
    assert not re.search(r"hf_[A-Za-z0-9]{8}|hfray-[A-Za-z0-9_-]{40}|sha256", yaml.safe_dump(all_manifests[name]))


# -- jobs


def test_the_job_file_travels_as_it_is(tmp_path: Path) -> None:
    config, job = job_of(written(tmp_path, SCORE), place=Place(namespace="ml")).manifests
    assert config["data"] == {"job.yaml": SCORE}
    assert (config["metadata"]["namespace"], job["metadata"]["namespace"]) == ("ml", "ml")
    assert job["metadata"]["name"] == "masks-of-words"
    head, worker = pods(job)
    assert head["volumes"] == [{"name": "job", "configMap": {"name": config["metadata"]["name"]}}]
    (mount,) = head["containers"][0]["volumeMounts"]
    assert job["spec"]["entrypoint"] == f"hfray run {mount['mountPath']}/job.yaml"
    assert "volumes" not in worker


def test_overrides_are_in_the_file(tmp_path: Path) -> None:
    path, overrides = written(tmp_path, SCORE), ("workers.max=9", "input.limit=10", "name=yes")
    config, job = job_of(path, *overrides, place=Place()).manifests
    sent = load_job(written(tmp_path, config["data"]["job.yaml"], "sent.yaml"))
    assert sent == load_job(path, overrides)
    assert "--set" not in job["spec"]["entrypoint"]
    assert groups(job)[1]["maxReplicas"] == 9


def test_a_lost_head_resumes(tmp_path: Path) -> None:
    spec = job_of(written(tmp_path, SCORE), place=Place()).manifests[1]["spec"]
    assert spec["submissionMode"] == "HTTPMode"
    assert spec["backoffLimit"] >= 1
    assert spec["shutdownAfterJobFinishes"] is True


def test_training_keeps_the_key_of_its_checkpoints(all_manifests: dict[str, list[dict[str, Any]]]) -> None:
    rendered = job_of(ROOT / "jobs" / "train-banking-lora.yaml")
    head, worker = pods(rendered.manifests[1])
    (variable,) = head["containers"][0]["env"]
    mounts = {mount["name"]: mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]}
    (secret,) = (volume for volume in head["volumes"] if "secret" in volume)
    assert secret["secret"]["secretName"] == "hfray-checkpoint-key"
    assert variable["value"] == f"{mounts[secret['name']]}/key"
    assert "hfray-checkpoint-key" not in yaml.safe_dump(worker)
    assert any("--from-file=key=" in need for need in rendered.needs)
    assert "hfray-checkpoint-key" not in yaml.safe_dump(all_manifests["fill-mask"])


def test_an_export_is_one_worker(tmp_path: Path) -> None:
    group = groups(job_of(ROOT / "jobs" / "export-nf4.yaml").manifests[1])[1]
    assert (group["minReplicas"], group["maxReplicas"]) == (1, 1)


def test_a_pool_without_bounds_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, SCORE.replace("max: 5, ", ""))
    with pytest.raises(SpecError, match=r"job.yaml:8: workers.max: missing; .*--set workers.max=8"):
        job_of(path, place=Place())


@pytest.mark.parametrize("name", ["1st", "x" * 48, "a" * 40 + "-" * 8])
def test_a_name_that_kuberay_refuses(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, SCORE.replace("masks_of.words", name))
    with pytest.raises(SpecError, match=r"job.yaml:3: name: .* give another with --name"):
        job_of(path, place=Place())
    assert job_of(path, place=Place(name="masks")).manifests[1]["metadata"]["name"] == "masks"
    with pytest.raises(SpecError, match=r"--name: Big: "):
        job_of(path, place=Place(name="Big"))


# -- clusters


def test_a_cluster_of_any_shape() -> None:
    workers = load_settings(ClusterShape, ["workers.max=4", "workers.gpus=2", "workers.cpus=8"]).workers
    (cluster,) = ray_cluster(workers, Place(name="big")).manifests
    assert problems(cluster) == []
    group = groups(cluster)[1]
    assert (group["groupName"], group["minReplicas"], group["maxReplicas"]) == ("cpu8-gpu2-8gb", 1, 4)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "--set workers.max: missing"),
        (["workers.max=x"], "--set workers.max: "),
        (["workers.max=2", "workers.labels={a: b}"], "--set workers.labels: {'a': 'b'}: pods have no labels"),
        (["workers.min=4", "workers.max=2"], "--set workers.min: 4 is above"),
        (["worker.max=2"], "--set worker: unknown key, did you mean workers?"),
    ],
)
def test_a_wrong_shape(overrides: list[str], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        ray_cluster(load_settings(ClusterShape, overrides).workers, Place())
    assert said in str(caught.value)


def test_the_version_is_that_of_ray() -> None:
    (cluster,) = ray_cluster(load_settings(ClusterShape, ["workers.max=1"]).workers, Place()).manifests
    assert cluster["spec"]["rayVersion"] == version("ray")
