"""Which engine a job gets. What the engines answer: tests/engines, tests/kinds/test_workers.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from hfray.engines.batch import BatchEngine
from hfray.engines.continuous.engine import ContinuousEngine
from hfray.errors import SpecError
from hfray.inference.engines import choose_engine, make_engine
from hfray.models.load import load_model
from hfray.spec.score import ScoreJob
from hfray.tasks import TASKS
from tests.models.support import save_decoder


def job(**changes: Any) -> ScoreJob:
    spec: dict[str, Any] = {
        "name": "engines",
        "model": {"path": "m"},
        "task": {"name": "text-generation"},
        "input": {"path": "x"},
        "output": {"path": "y"},
    }
    return ScoreJob.model_validate(spec | changes)


def config(model_type: str, **changes: Any) -> Any:
    return AutoConfig.for_model(model_type, **changes)


def test_generation_with_a_proved_architecture_is_continuous() -> None:
    assert choose_engine(job(), config("llama")).name == "continuous"
    assert choose_engine(job(model={"path": "m", "quantization": "nf4"}), config("llama")).name == "continuous"


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        ({"task": {"name": "text-classification"}}, config("llama")),
        ({"task": {"name": "perplexity"}}, config("llama")),
        ({"task": {"name": "summarization"}}, config("t5")),
        ({}, config("falcon")),
        ({}, config("rwkv")),
        ({}, config("qwen3", layer_types=["full_attention", "linear_attention"], num_hidden_layers=2)),
        ({"model": {"path": "m", "device_map": "auto"}}, config("llama")),
        ({"model": {"path": "m", "attention": "eager"}}, config("llama")),
        ({"model": {"path": "m", "quantization": "int8"}}, config("llama")),
        ({}, config("llama", quantization_config={"load_in_8bit": True})),
        ({"engine": {"name": "batch"}}, config("llama")),
        ({"engine": {"max_batch_tokens": 512}}, config("llama")),
    ],
    ids=[
        "forward",
        "no text",
        "encoder-decoder",
        "own attention",
        "unknown",
        "recurrent",
        "spread",
        "eager",
        "int8",
        "int8 stored",
        "asked",
        "implied",
    ],
)
def test_everything_else_is_batch(changes: dict[str, Any], model: Any) -> None:
    assert choose_engine(job(**changes), model).name == "batch"


@pytest.mark.parametrize(
    ("changes", "model", "reason"),
    [
        ({}, config("falcon"), "FalconForCausalLM: its attention is its own"),
        ({}, config("rwkv"), "RwkvForCausalLM: "),
        ({}, config("t5"), "it is an encoder-decoder"),
        ({}, config("qwen3", layer_types=["linear_attention"], num_hidden_layers=1), "layers of linear_attention"),
        ({"model": {"path": "m", "device_map": "auto"}}, config("llama"), "model.device_map"),
        ({"model": {"path": "m", "attention": "sdpa"}}, config("llama"), "model.attention asks for sdpa"),
    ],
)
def test_a_continuous_engine_that_cannot_be_says_why(changes: dict[str, Any], model: Any, reason: str) -> None:
    with pytest.raises(SpecError, match=f"engine.name: continuous cannot run this job: .*{reason}"):
        choose_engine(job(engine={"name": "continuous"}, **changes), model)


def test_an_architecture_that_no_test_has_seen_may_be_asked_for() -> None:
    assert choose_engine(job(engine={"name": "continuous"}), config("arcee")).name == "continuous"


@pytest.mark.parametrize(
    ("task", "reason"),
    [("fill-mask", "computes no text"), ("perplexity", "computes no text"), ("translation", "encoder-decoders")],
)
def test_a_task_that_does_not_fit_is_known_without_a_model(task: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"task {task} .*{reason}"):
        job(task={"name": task}, engine={"name": "continuous"})


def test_the_settings_reach_the_engine(tmp_path: Path) -> None:
    settings = {"name": "continuous", "cache_gb": 0.001, "max_step_tokens": 48, "max_running": 5}
    asked = job(model={"path": str(save_decoder(tmp_path)), "dtype": "float32"}, engine=settings)
    model = load_model(asked.model, TASKS["text-generation"])
    engine = make_engine(asked.engine, model, device_share=0.25)
    engine.close()
    assert isinstance(engine, ContinuousEngine)
    assert (engine.scheduler.budget.now, engine.scheduler.max_running) == (48, 5)
    assert engine._runner._device_share == 0.25, "of a GPU that other workers have a share of too"
    per_block = engine.cache.block_tokens * 2 * 2 * 2 * 16 * 4
    assert engine.cache.num_blocks == int(0.001 * 2**30) // per_block
    found = []
    for online in (False, True):
        own = make_engine(job(engine={"name": "continuous"}).engine, model, online=online)
        own.close()
        assert isinstance(own, ContinuousEngine)
        found.append(own.scheduler.budget.now)
    assert found == [1024, 256]
    batch = make_engine(job(engine={"max_batch_tokens": 99}).engine, model)
    batch.close()
    assert isinstance(batch, BatchEngine)
    assert batch.max_batch_tokens == 99
    with pytest.raises(ValueError, match="has not been chosen"):
        make_engine(None, model)
