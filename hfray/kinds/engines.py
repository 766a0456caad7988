"""Which engine runs a job, and how it is made. Knows specs, configurations and engines; not workers, not rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hfray.engines.base import Engine
from hfray.engines.continuous.proof import PROVED, architecture_problem, configuration_problem
from hfray.errors import SpecError
from hfray.models.load import LoadedModel
from hfray.spec.score import ScoreJob
from hfray.spec.sections import BatchEngineSpec, ContinuousEngineSpec, EngineSpec
from hfray.tasks import TASKS


def choose_engine(job: ScoreJob, config: Any) -> EngineSpec:
    """The job's own, or what suits its task and model. config: the model's Transformers configuration.

    Raises SpecError for a continuous engine that cannot be. Whether an architecture that no test has seen can be run by
    it, the model shows when it is loaded.
    """
    if isinstance(job.engine, ContinuousEngineSpec):
        problem = _setting_problem(job) or _architecture_problem(config)
        if problem is not None:
            raise SpecError(f"engine.name: continuous cannot run this job: {problem}; use batch, or leave engine out")
    if job.engine is not None:
        return job.engine
    # With int8 a text depends on all that shares its step; static batches of one shard are at least always the same.
    proved = config.model_type in PROVED and configuration_problem(config) is None and not _is_int8(job, config)
    fits = TASKS[job.task.name].auto_model == "AutoModelForCausalLM" and proved and _setting_problem(job) is None
    return ContinuousEngineSpec(name="continuous") if fits else BatchEngineSpec()


def make_engine(job: ScoreJob, model: LoadedModel) -> Engine:
    """The engine of a checked job over its model. Raises SpecError for a model that the engine cannot run."""
    if job.engine is None:
        raise ValueError("the job has not been checked: it has no engine yet")
    return _MAKERS[job.engine.name](job, job.engine, model)


def _setting_problem(job: ScoreJob) -> str | None:
    if job.model.device_map is not None:
        return "model.device_map spreads the model, and the cache is on one device"
    if job.model.attention != "auto":
        return f"it attends in its own way, and model.attention asks for {job.model.attention}"
    return None


def _is_int8(job: ScoreJob, config: Any) -> bool:
    from hfray.models.quantization import quantization_of

    return "int8" in (job.model.quantization, quantization_of(config))


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


def _batch(job: ScoreJob, spec: Any, model: LoadedModel) -> Engine:
    from hfray.engines.batch import BatchEngine

    # merge_batches: equal shards give equal parts
    return BatchEngine(
        model, max_batch_tokens=spec.max_batch_tokens, max_batch_items=spec.max_batch_items, merge_batches=0
    )


def _continuous(job: ScoreJob, spec: Any, model: LoadedModel) -> Engine:
    from hfray.engines.continuous.engine import ContinuousEngine

    return ContinuousEngine(
        model,
        cache_bytes=spec.cache_gb if spec.cache_gb == "auto" else int(spec.cache_gb * 2**30),
        max_step_tokens=spec.max_step_tokens,
        max_running=spec.max_running,
        device_share=min(1.0, job.workers.gpus) or 1.0,
    )


_MAKERS: dict[str, Callable[[ScoreJob, Any, LoadedModel], Engine]] = {"batch": _batch, "continuous": _continuous}
