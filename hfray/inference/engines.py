"""Which engine runs a model for a job or an endpoint, and how it is made. Knows specs, configurations and engines; not
workers, not rows."""

from __future__ import annotations

from typing import Any, Protocol

from hfray.engines.base import Engine
from hfray.engines.continuous.proof import PROVED, architecture_problem, configuration_problem
from hfray.errors import SpecError
from hfray.models.load import LoadedModel
from hfray.spec.sections import BatchEngineSpec, ContinuousEngineSpec, EngineSpec, FakeEngineSpec, ModelSpec
from hfray.tasks import TASKS
from hfray.tasks.base import TaskOptions


class ModelUse(Protocol):
    """What a job and an endpoint have in common: a model, what it does, and how it is run."""

    @property
    def model(self) -> ModelSpec: ...
    @property
    def task(self) -> TaskOptions: ...
    @property
    def engine(self) -> EngineSpec | None: ...


def choose_engine(use: ModelUse, config: Any) -> EngineSpec:
    """The job's own, or what suits its task and model. config: the model's Transformers configuration.

    Raises SpecError for a continuous engine that cannot be. Whether an architecture that no test has seen can be run by
    it, the model shows when it is loaded.
    """
    if isinstance(use.engine, ContinuousEngineSpec):
        problem = _setting_problem(use) or _architecture_problem(config)
        if problem is not None:
            raise SpecError(f"engine.name: continuous cannot run this job: {problem}; use batch, or leave engine out")
    if use.engine is not None:
        return use.engine
    # With int8 a text depends on all that shares its step; static batches of one shard are at least always the same.
    proved = config.model_type in PROVED and configuration_problem(config) is None and not _is_int8(use, config)
    fits = TASKS[use.task.name].generates_causally() and proved and _setting_problem(use) is None
    return ContinuousEngineSpec(name="continuous") if fits else BatchEngineSpec()


def make_engine(
    spec: EngineSpec | None, model: LoadedModel, *, device_share: float = 1.0, online: bool = False
) -> Engine:
    """The engine over a loaded model. Raises SpecError for a model that the engine cannot run.

    device_share: how much of a GPU is this process's. online: whether clients wait for it; their requests then share
    batches, and their texts do not stand still while long prompts are read. A job's shards are computed each by itself,
    so that equal ones have equal answers to the last bit.
    """
    if spec is None or isinstance(spec, FakeEngineSpec):
        raise ValueError("the engine has not been chosen yet, or needs no model")
    if isinstance(spec, ContinuousEngineSpec):
        return _continuous(spec, model, device_share, online)
    return _batch(spec, model, online)


def _setting_problem(use: ModelUse) -> str | None:
    if use.model.device_map is not None:
        return "model.device_map spreads the model, and the cache is on one device"
    if use.model.attention != "auto":
        return f"it attends in its own way, and model.attention asks for {use.model.attention}"
    return None


def _is_int8(use: ModelUse, config: Any) -> bool:
    from hfray.models.quantization import quantization_of

    return "int8" in (use.model.quantization, quantization_of(config))


def _architecture_problem(config: Any) -> str | None:
    problem = configuration_problem(config)
    if problem is not None or config.model_type in PROVED:
        return problem
    from transformers import AutoModelForCausalLM

    try:
        model_class = AutoModelForCausalLM._model_mapping[type(config)]
    except KeyError:
        return f"Transformers has no decoder of the type {config.model_type}"
    problem = architecture_problem(model_class, config)
    return None if problem is None else f"{model_class.__name__}: {problem}"


def _batch(spec: BatchEngineSpec, model: LoadedModel, online: bool) -> Engine:
    from hfray.engines.batch import MERGE_BATCHES, BatchEngine

    return BatchEngine(
        model,
        max_batch_tokens=spec.max_batch_tokens,
        max_batch_items=spec.max_batch_items,
        merge_batches=MERGE_BATCHES if online else 0,
    )


def _continuous(spec: ContinuousEngineSpec, model: LoadedModel, device_share: float, online: bool) -> Engine:
    from hfray.engines.continuous.engine import ContinuousEngine

    return ContinuousEngine(
        model,
        cache_bytes="auto" if spec.cache_gb == "auto" else int(spec.cache_gb * 2**30),
        max_step_tokens=spec.max_step_tokens,
        max_running=spec.max_running,
        device_share=device_share,
        online=online,
    )
