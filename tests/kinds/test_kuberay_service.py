"""A Ray Serve file as a RayService: its content, its keys, its replicas, and who is asked whether a pod is ready."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hfray.errors import SpecError
from hfray.kinds.kuberay import Place
from hfray.serving.guard import OPEN_PATHS
from hfray.spec.serve_file import load_serve_file
from tests.kinds.kuberay_schemas import problems
from tests.kinds.rendering import SERVE, groups, pods, service_of, written


def test_the_serve_file_travels_whole(tmp_path: Path) -> None:
    (service,) = service_of(tmp_path).manifests
    assert problems(service) == []
    sent = yaml.safe_load(service["spec"]["serveConfigV2"])
    expected = yaml.safe_load(SERVE)
    expected["applications"][0]["args"]["keys"] = "/etc/hfray/keys/keys.yaml"
    assert sent == expected
    load_serve_file(written(tmp_path, service["spec"]["serveConfigV2"], "sent.yaml"))


def test_keys_come_from_a_secret(tmp_path: Path) -> None:
    rendered = service_of(tmp_path)
    for pod in pods(rendered.manifests[0]):
        (volume,) = pod["volumes"]
        assert volume["secret"] == {"secretName": "front-keys", "defaultMode": 0o440}
        assert pod["containers"][0]["volumeMounts"] == [
            {"name": volume["name"], "mountPath": "/etc/hfray/keys", "readOnly": True}
        ]
    assert "generic front-keys '--from-file=keys.yaml=my keys.yaml'" in rendered.needs[0]
    assert service_of(tmp_path, place=Place(namespace="ml")).needs[0].endswith(" --namespace ml")


def test_replicas_become_groups(tmp_path: Path) -> None:
    _, small, large = groups(service_of(tmp_path).manifests[0])
    # small and other are of one size: 0 + 2 to 2 x (3 + 2), for an update starts new ones before it ends the old
    assert (small["groupName"], small["minReplicas"], small["maxReplicas"]) == ("cpu1-8gb", 2, 10)
    # two of large share a GPU
    assert (large["groupName"], large["minReplicas"], large["maxReplicas"]) == ("cpu2-gpu1-30gb", 1, 3)


def test_a_pod_without_a_gateway_gets_no_requests(tmp_path: Path) -> None:
    head, *workers = pods(service_of(tmp_path).manifests[0])
    for pod in workers:
        probe = pod["containers"][0]["readinessProbe"]
        assert probe["httpGet"] == {"path": "/healthz", "port": 8080}
    ports = {port["name"]: port["containerPort"] for port in head["containers"][0]["ports"]}
    assert ports["serve"] == 8080
    assert "readinessProbe" not in head["containers"][0]  # the operator asks the head's /-/healthz itself


def test_the_probes_need_no_key() -> None:
    assert {"/healthz", "/-/healthz"} <= OPEN_PATHS


def test_an_open_gateway_is_refused(tmp_path: Path) -> None:
    text = SERVE.replace("host: 0.0.0.0, port: 8080, keys: my keys.yaml", "port: 8080")
    with pytest.raises(SpecError) as caught:
        service_of(tmp_path, text)
    said = str(caught.value)
    assert "front.yaml:6: applications.0.args.keys: missing" in said
    for what in ("hfray keys add --file keys.yaml", "`host: 0.0.0.0`", "`keys: keys.yaml`", "Secret front-keys"):
        assert what in said


@pytest.mark.parametrize("host", ["host: 127.0.0.1, ", "host: localhost, ", ""])
def test_a_gateway_on_loopback_is_refused(host: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"front.yaml:6: applications.0.args.host: .* write `host: 0.0.0.0`"):
        service_of(tmp_path, SERVE.replace("host: 0.0.0.0, ", host))
