"""A Ray Serve file is checked at both levels, and every mistake has its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hfray.errors import SpecError
from hfray.spec.endpoint import EndpointSpec, GatewaySpec
from hfray.spec.serve_file import is_serve_file, load_serve_file

GOOD = """\
proxy_location: Disabled
applications:
  - name: gateway
    import_path: hfray.serving.app:gateway
    args: {port: 8001}
  - name: weather
    import_path: hfray.serving.app:model
    route_prefix: null
    args:
      model: {path: some/model}
      task: {name: text-classification, top_k: 2}
      replicas: {min: 0, max: 3}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "endpoints.yaml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert is_serve_file(path)
    file = load_serve_file(path)
    assert file.gateway.port == 8001
    assert list(file.models) == ["weather"]
    assert file.models["weather"].replicas.max == 3


def test_a_job_is_no_serve_file(tmp_path: Path) -> None:
    assert not is_serve_file(write(tmp_path, "kind: score\n"))


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("Disabled", "EveryNode", 1, "proxy_location: must be Disabled"),
        ("proxy_location", "proxy_locatoin", 1, "did you mean proxy_location"),
        ("name: weather", "name: We ather", 6, "lower-case"),
        ("name: weather", "name: gateway", 6, "another application"),
        ("route_prefix: null", "route_prefix: /weather", 8, "must be null"),
        ("    route_prefix: null\n", "", 6, "route_prefix: must be null"),
        ("top_k: 2", "topk: 2", 11, "did you mean top_k"),
        ("max: 3", "max: three", 12, "whole number"),
        ("min: 0", "min: 4", 12, "above autoscaling.max"),
        ("app:model", "app:modell", 7, "did you mean hfray.serving.app:model"),
        ("port: 8001", "host: 0.0.0.0", 5, "without keys"),
        ("port: 8001", "port: 0", 5, "at least 1"),
        ("text-classification, top_k: 2", "text-clasification", 11, "did you mean text-classification"),
    ],
)
def test_a_mistake_has_its_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(SpecError) as caught:
        load_serve_file(path)
    assert f"{path}:{line}: " in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("number", [0, 2])
def test_there_is_one_gateway(tmp_path: Path, number: int) -> None:
    gateway = GOOD[GOOD.index("  - name: gateway") : GOOD.index("  - name: weather")]
    several = "".join(gateway.replace("name: gateway", f"name: gateway{each}") for each in range(number))
    with pytest.raises(SpecError, match=f"needs one application of .*, and has {number}"):
        load_serve_file(write(tmp_path, GOOD.replace(gateway, several)))


def test_other_applications_are_ray_serves_business(tmp_path: Path) -> None:
    other = "  - {name: other, import_path: my.app:app, route_prefix: /other, args: {any: thing}}\n"
    assert list(load_serve_file(write(tmp_path, GOOD + other)).models) == ["weather"]


def test_replicas_may_be_a_number() -> None:
    spec = EndpointSpec.model_validate({"model": {"path": "m"}, "task": "fill-mask", "replicas": 3})
    assert (spec.replicas.min, spec.replicas.max) == (3, 3)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert GatewaySpec(host=host).keys is None
    assert GatewaySpec(host="10.0.0.1", keys="keys.yaml").host == "10.0.0.1"
