"""The applications of a Ray Serve file: `hfray.serving.app:model` and `hfray.serving.app:gateway`. Knows Ray Serve;
what a replica and a gateway do is theirs.

Ray Serve looks at the annotation of a builder's argument, which must be the class itself: this module does not postpone
the evaluation of annotations.
"""

import warnings
from typing import TYPE_CHECKING, Any

from hfray.serving.calls import DEPLOYMENT
from hfray.spec.endpoint import AutoscalingSpec, EndpointSpec, GatewaySpec

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve.config import AutoscalingConfig

GATEWAY = "gateway"
REPORTS_EVERY_S = 1.0
"""How often replicas tell the controller of their requests. Ray Serve's own 10 s would come on top of the delays."""
QUIET = {"enable_access_log": False, "log_level": "WARNING"}
"""Ray Serve would write a line for every call."""


def model(args: EndpointSpec) -> "Application":
    """One model. Raises SpecError for a model that cannot do the task; hub revisions are pinned here, so that all
    replicas have the same weights."""
    from ray import serve

    from hfray.inference.model_use import check_use
    from hfray.serving.cards import card_of, with_folder
    from hfray.serving.model import Model

    spec = with_folder(args)
    checked, processor, info = check_use(spec)
    replicas, resources, limits = spec.replicas, spec.resources, spec.limits
    actor: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    if resources.memory_gb is not None:
        actor["memory"] = int(resources.memory_gb * 2**30)
    options: dict[str, Any] = {
        "name": DEPLOYMENT,
        "logging_config": QUIET,
        "ray_actor_options": actor,
        "user_config": card_of(spec, checked, processor, info).to_json(),
        # The gateway's lanes keep fewer calls on their way; these bounds are for callers that are none.
        "max_ongoing_requests": 4 * limits.max_ongoing_requests,
        "max_queued_requests": 4 * limits.max_queued_requests,
        "health_check_period_s": spec.health_period_s,
        "health_check_timeout_s": spec.health_timeout_s + 10,
        "graceful_shutdown_timeout_s": spec.drain_s,
        "graceful_shutdown_wait_loop_s": 0.5,
        "max_surge_percent": 100,  # a new replica answers before the old one goes
    }
    if replicas.min == replicas.max:
        options["num_replicas"] = replicas.max
    else:
        options["autoscaling_config"] = _autoscaling(replicas)
    return serve.deployment(Model).options(**options).bind(checked, spec)


def _autoscaling(replicas: AutoscalingSpec) -> "AutoscalingConfig":
    from ray.serve.config import AutoscalingConfig

    with warnings.catch_warnings():
        # Of metrics_interval_s; the environment variables that are to take its place are not read yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        return AutoscalingConfig(
            min_replicas=replicas.min,
            initial_replicas=replicas.min,
            max_replicas=replicas.max,
            target_ongoing_requests=replicas.target_ongoing_requests,
            upscale_delay_s=replicas.upscale_delay_s,
            downscale_delay_s=replicas.downscale_delay_s,
            metrics_interval_s=REPORTS_EVERY_S,
            look_back_period_s=max(2 * REPORTS_EVERY_S, replicas.upscale_delay_s),
            policy={"policy_function": "hfray.serving.scaling:requests_per_replica"},
        )


def gateway(args: GatewaySpec) -> "Application":
    """The front of all models of the cluster."""
    from ray import serve

    from hfray.serving.gateway import Gateway
    from hfray.serving.quota import QuotaBook

    options: dict[str, Any] = {
        "name": GATEWAY,
        "logging_config": QUIET,
        "num_replicas": args.replicas,
        "ray_actor_options": {"num_cpus": 0},
        "max_ongoing_requests": 100,
        "max_queued_requests": 100,
        "health_check_period_s": 2.0,
        "health_check_timeout_s": 10.0,
        "graceful_shutdown_timeout_s": args.drain_s + 5,
        "graceful_shutdown_wait_loop_s": 0.1,
        "max_surge_percent": 100,
    }
    book = None
    if args.keys is not None:
        once = {
            "name": "quotas",
            "logging_config": QUIET,
            "ray_actor_options": {"num_cpus": 0},
            "max_ongoing_requests": 1000,
            "max_queued_requests": 1000,
        }
        book = serve.deployment(QuotaBook).options(**once).bind()
    return serve.deployment(Gateway).options(**options).bind(args, book)
