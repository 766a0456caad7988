"""What Ray Serve is told of a model: its resources and its replicas. That it follows is shown in tests/promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hfray.serving.app import gateway, model
from hfray.spec.endpoint import EndpointSpec, GatewaySpec
from tests.models.support import save_model


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("classifier"))


def deployment_of(path: Path, **changes: Any) -> Any:
    spec = {"model": {"path": str(path)}, "task": "text-classification", **changes}
    # Ray Serve has no public way from an application to its deployment.
    return model(EndpointSpec.model_validate(spec))._bound_deployment


def test_resources(path: Path) -> None:
    assert deployment_of(path).ray_actor_options.items() >= {"num_cpus": 1.0, "num_gpus": 0.0}.items()
    asked = deployment_of(path, resources={"cpus": 4, "gpus": 0.25, "memory_gb": 1.5}).ray_actor_options
    assert asked.items() >= {"num_cpus": 4.0, "num_gpus": 0.25, "memory": 1.5 * 2**30}.items()


def test_a_fixed_number_of_replicas(path: Path) -> None:
    found = deployment_of(path, replicas={"min": 3, "max": 3}, drain_s=7)
    assert found.num_replicas == 3
    config = found._deployment_config
    assert config.autoscaling_config is None
    assert config.graceful_shutdown_timeout_s == 7
    assert config.max_surge_percent == 100, "a new replica answers before the old one goes"


def test_every_queue_has_an_end(path: Path) -> None:
    """Ray Serve's own queues have none by default (promise R12)."""
    front = gateway(GatewaySpec(keys=str(path / "keys.yaml")))._bound_deployment
    (quotas,) = (each._bound_deployment for each in front.init_args if hasattr(each, "_bound_deployment"))
    found = [deployment_of(path), front, quotas]
    assert [each.name for each in found] == ["model", "gateway", "quotas"]
    for each in found:
        config = each._deployment_config
        assert 0 < config.max_ongoing_requests < 10_000, each.name
        assert 0 < config.max_queued_requests < 10_000, each.name


def test_a_range_of_replicas(path: Path) -> None:
    replicas = {"min": 0, "max": 5, "target_ongoing_requests": 9, "upscale_delay_s": 1, "downscale_delay_s": 8}
    config = deployment_of(path, replicas=replicas)._deployment_config.autoscaling_config
    assert (config.min_replicas, config.initial_replicas, config.max_replicas) == (0, 0, 5)
    assert (config.target_ongoing_requests, config.upscale_delay_s, config.downscale_delay_s) == (9, 1, 8)
    assert config.metrics_interval_s < config.look_back_period_s == 2
    assert config.policy.policy_function == "hfray.serving.scaling:requests_per_replica"
