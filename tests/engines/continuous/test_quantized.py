"""Quantised models, with an adapter, in both engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from hfray.engines.batch import BatchEngine
from hfray.engines.continuous.engine import ContinuousEngine
from hfray.inference.predictor import Predictor
from hfray.models.load import load_model
from hfray.spec.sections import ModelSpec
from hfray.tasks import TASKS
from tests.models.lora_support import save_lora
from tests.models.support import save_decoder

ROWS = [
    {"prompt": f"text {number} " + "word " * (number % 7), "adapter": "tuned" if number % 3 == 0 else None}
    for number in range(10)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("quantized")
    save_decoder(found / "model")
    base = transformers.AutoModelForCausalLM.from_pretrained(found / "model")
    save_lora(base, found / "tuned", target_modules=["q_proj", "down_proj"])
    return found


def texts(engine: Any, folder: Path, quantization: Any) -> list[Any]:
    task = TASKS["text-generation"]
    adapters: Any = {"tuned": {"path": str(folder / "tuned")}}
    spec = ModelSpec(path=str(folder / "model"), dtype="float32", quantization=quantization, adapters=adapters)
    loaded = load_model(spec, task)
    made = engine(loaded)
    try:
        inner = task(task.Options(name="text-generation", max_new_tokens=12), loaded.processor, loaded.info)
        return Predictor(inner, made, adapters=["tuned"]).predict(ROWS)
    finally:
        made.close()


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
def test_four_bits_say_the_same_in_both_engines(folder: Path, quantization: str) -> None:
    """Weights are rounded once, whatever shares the batch."""
    found = texts(ContinuousEngine, folder, quantization)
    assert found == texts(BatchEngine, folder, quantization)
    assert len(set(found)) == len(ROWS)
    assert found != texts(ContinuousEngine, folder, "none")


@pytest.mark.slow
def test_eight_bits_run_where_they_are_asked_for(folder: Path) -> None:
    """Their rounding depends on what shares the step, so nothing is equal; the proof must allow for that."""
    assert all(isinstance(each, str) for each in texts(ContinuousEngine, folder, "int8"))
