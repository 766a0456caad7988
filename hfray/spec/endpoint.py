"""The arguments of the applications in a Ray Serve file: a model's, and the gateway's. Frozen values, as jobs are;
knows no file, no Ray."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from hfray.spec.fields import misfit
from hfray.spec.score import AnyTask
from hfray.spec.sections import ContinuousEngineSpec, EngineSpec, ModelSpec
from hfray.tasks import TASKS
from hfray.types import Strict

DEFAULT_PORT = 8000
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ResourcesSpec(Strict):
    """What one replica takes."""

    cpus: float = Field(default=1.0, ge=0)
    """CPUs; the model computes with as many threads."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs; fractions share a GPU."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory that Ray reserves, in GiB."""


class AutoscalingSpec(Strict):
    """How many replicas, between which bounds."""

    min: int = Field(default=1, ge=0)
    """Replicas that are kept; 0 gives everything back when nobody asks, and the next request waits for a start."""
    max: int = Field(default=1, ge=1)
    """Most replicas."""
    target_ongoing_requests: float = Field(default=16.0, gt=0)
    """Requests per replica, waiting or computed, that the number of replicas is steered to."""
    upscale_delay_s: float = Field(default=3.0, ge=0)
    """How long the load must be higher before replicas are added."""
    downscale_delay_s: float = Field(default=60.0, ge=0)
    """How long the load must be lower before one is taken away."""

    @model_validator(mode="after")
    def _check_range(self) -> AutoscalingSpec:
        if self.min > self.max:
            raise misfit("min", f"{self.min} is above autoscaling.max, {self.max}")
        return self


class LimitsSpec(Strict):
    """What one request may ask for, and how long it may wait."""

    timeout_s: float = Field(default=60.0, gt=0, le=3600)
    """From its arrival to its answer, of a stream to its end; after it the request ends with 408."""
    max_queued_requests: int = Field(default=256, ge=1)
    """Requests that wait at one gateway for this model; more are refused with 503."""
    max_ongoing_requests: int = Field(default=64, ge=1)
    """Requests in one replica at once; of a generating model: texts in its batch or waiting for a place in it."""
    max_inputs: int = Field(default=64, ge=1, le=2048)
    """Inputs of one request."""
    max_chars: int = Field(default=200_000, ge=1)
    """Characters of one input."""
    max_new_tokens: int = Field(default=4096, ge=1)
    """Most tokens that a request may have generated for one text."""
    max_total_tokens: int = Field(default=65_536, ge=1)
    """Most tokens that a request may have generated for all its texts together."""
    max_body_bytes: int = Field(default=1 << 20, ge=1024)
    """Bytes of a request without images; with images ten times as many."""
    max_image_pixels: int = Field(default=50_000_000, ge=1)
    """Pixels of one image, width times height."""


def _as_autoscaling(value: object) -> object:
    return {"min": value, "max": value} if isinstance(value, int) and not isinstance(value, bool) else value


class EndpointSpec(Strict):
    """A model that answers requests: the arguments of an application of `hfray.serving.app:model`."""

    model: ModelSpec
    """Which model; its `adapters` are answered as `name:adapter`."""
    task: AnyTask
    """What it does: a name, or a section with its options; requests may set their own."""
    engine: EngineSpec | None = None
    """How the model is run; default: as for a job."""
    adapters_folder: str | None = None
    """A folder each of whose subfolders is a LoRA adapter, named like the subfolder; beside `model.adapters`."""
    replicas: Annotated[
        AutoscalingSpec,
        BeforeValidator(_as_autoscaling, json_schema_input_type=int | AutoscalingSpec),
    ] = AutoscalingSpec()
    """How many replicas: a number, or a section with `min` and `max`."""
    resources: ResourcesSpec = ResourcesSpec()
    """What one replica takes."""
    limits: LimitsSpec = LimitsSpec()
    """What a request may ask for."""
    warm_up: bool = True
    """Whether a replica answers a short input of its own before it takes requests."""
    health_period_s: float = Field(default=2.0, gt=0)
    """How often Ray asks a replica for its health."""
    health_timeout_s: float = Field(default=30.0, gt=0)
    """How long the model may work at one step before its replica counts as stuck and is replaced. A third of it is
    what the texts of a request may take to be encoded."""
    drain_s: float = Field(default=30.0, gt=0)
    """How long a replica that is being replaced may take to answer what it has."""

    @model_validator(mode="after")
    def _check_engine(self) -> EndpointSpec:
        task = TASKS[self.task.name]
        if isinstance(self.engine, ContinuousEngineSpec) and not task.generates_causally():
            raise misfit(
                "engine.name", f"continuous generates with decoder-only models; use batch for {self.task.name}"
            )
        return self

    @model_validator(mode="after")
    def _check_adapters(self) -> EndpointSpec:
        if self.adapters_folder is not None and self.model.adapter is not None:
            raise misfit(
                "adapters_folder", "model.adapter is for all requests; move it into the folder, or leave one out"
            )
        if self.adapters_folder is not None and self.model.device_map is not None:
            raise misfit("adapters_folder", "adapters are on one device, and model.device_map spreads the model")
        return self


class GatewaySpec(Strict):
    """The front of all models: the arguments of the application of `hfray.serving.app:gateway`."""

    host: str = "127.0.0.1"
    """Where it listens. Elsewhere than on loopback it needs keys."""
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    """Port of every gateway replica; one on each node."""
    keys: str | None = None
    """File of API keys (`hfray keys add`); without it everybody who reaches the port is served."""
    replicas: int = Field(default=1, ge=1)
    """Gateways; several on one node share its port."""
    playground: bool = False
    """Whether there is a page to try the models at /playground (extra `ui`); with keys it asks for one. Its sessions
    live in one gateway, so `replicas` must be 1."""
    max_held_bytes: int = Field(default=64 << 20, ge=1 << 20)
    """Bytes of all requests' bodies that one gateway holds at once; more are refused with 503."""
    drain_s: float = Field(default=30.0, gt=0)
    """How long a gateway that is being replaced may take to answer what it has."""
    metrics: bool = True
    """Whether Prometheus metrics are kept; Ray exports them on every node."""

    @model_validator(mode="after")
    def _check_open(self) -> GatewaySpec:
        if self.keys is None and self.host not in LOOPBACK:
            raise misfit(
                "host",
                f"{self.host} can be reached from other machines, and without keys everybody would be served; make "
                "some with `hfray keys add` and name their file as keys, or listen on 127.0.0.1",
            )
        if self.playground and self.replicas > 1:
            raise misfit("playground", "its sessions live in one gateway; set replicas to 1, or leave playground out")
        return self


MODEL_PATH = "hfray.serving.app:model"
GATEWAY_PATH = "hfray.serving.app:gateway"
APPLICATIONS: dict[str, type[Strict]] = {MODEL_PATH: EndpointSpec, GATEWAY_PATH: GatewaySpec}
"""Import path of an application to the class of its arguments."""
