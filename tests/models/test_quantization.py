"""bitsandbytes on the CPU: answers stay near, memory is counted right, and the console stays quiet."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from hfray.engines.batch import BatchEngine
from hfray.errors import ItemError
from hfray.models.load import LoadedModel, load_model
from hfray.models.quantization import bytes_now, num_parameters, quantization_config
from hfray.spec.sections import ModelSpec
from hfray.tasks import TASKS
from hfray.types import Item, Logits
from tests.models.support import save_model

torch.set_num_threads(1)

KERNELS = """
from pathlib import Path

def get_kernel(*_, **__):
    Path({marker!r}).touch()
    raise RuntimeError("code from elsewhere")
"""
IMPORT = """
import sys
import kernels
from hfray.models.quantization import import_bitsandbytes
import_bitsandbytes()
assert "bitsandbytes" in sys.modules
assert sys.modules["kernels"] is kernels
"""


@pytest.mark.slow
@pytest.mark.parametrize("guarded", [True, False])
def test_no_compiled_code_is_fetched_at_an_import(tmp_path: Path, guarded: bool) -> None:
    """Unguarded it is, on such a processor: what the guard is against."""
    if not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("bitsandbytes asks for a kernel on processors with AVX512-BF16 only")
    marker = tmp_path / "fetched"
    (tmp_path / "kernels.py").write_text(KERNELS.format(marker=str(marker)))
    code = IMPORT if guarded else "import bitsandbytes"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, timeout=120)
    assert marker.exists() != guarded


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("quantization") / "model")


def load(folder: Path, quantization: str, **changes: Any) -> LoadedModel:
    spec = ModelSpec(path=str(folder), quantization=quantization, **{"dtype": "float32", **changes})
    return load_model(spec, TASKS["text-classification"])


def logits(loaded: LoadedModel) -> Any:
    random = np.random.default_rng(0)
    items = [Item("text", {"input_ids": random.integers(5, 90, n)}, Logits()) for n in (3, 8, 20)]
    with closing(BatchEngine(loaded)) as engine:
        outputs = engine.run(items)
    assert not any(isinstance(output, ItemError) for output in outputs), outputs
    return np.array([output["logits"] for output in outputs if isinstance(output, dict)])


@pytest.mark.parametrize(
    ("quantization", "dtype", "error"),
    [("int8", "float32", 0.05), ("int8", "bfloat16", 0.1), ("nf4", "float32", 0.5), ("fp4", "bfloat16", 0.9)],
)
def test_answers_and_memory(
    folder: Path, quantization: str, dtype: str, error: float, caplog: pytest.LogCaptureFixture
) -> None:
    full = load(folder, "none")
    with caplog.at_level(logging.WARNING):
        loaded = load(folder, quantization, dtype=dtype)
        answers = logits(loaded)
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]
    expected = logits(full)
    assert np.abs(answers - expected).mean() < error * np.abs(expected).mean()
    assert np.abs(answers - expected).max() > 0
    facts = loaded.facts
    assert facts.quantization == quantization
    assert facts.parameters == full.facts.parameters
    itemsize = 4 if dtype == "float32" else 2
    buffers = full.facts.bytes_before - 4 * full.facts.parameters
    assert facts.bytes_before == itemsize * facts.parameters + buffers
    # Linear layers of the encoder are quantised (64 x 64 and 64 x 128, two layers); the rest stays.
    quantised = 2 * (4 * 64 * 64 + 2 * 64 * 128)
    width = {"int8": 1.0, "nf4": 0.5, "fp4": 0.5}[quantization]
    # The scales: float32 for each output row, or for each block of 64 weights.
    scales = 2 * (4 * 64 + 128 + 64) * 4 if quantization == "int8" else quantised // 64 * 4
    pooler = 64 * 64
    low = facts.bytes_before - (quantised + pooler) * (itemsize - width)
    high = facts.bytes_before - quantised * (itemsize - width) + scales + 64 * 4 * 2
    assert low < facts.bytes_after <= high


def test_double_quantisation_shrinks_the_scales(folder: Path) -> None:
    once, twice = load(folder, "nf4"), load(folder, "nf4", double_quantization=True)
    assert twice.facts.bytes_after < once.facts.bytes_after
    assert twice.facts.parameters == once.facts.parameters
    assert np.abs(logits(once) - logits(twice)).max() > 0


@pytest.mark.parametrize("changes", [{"labels": ("a", "b", "c")}, {"hidden_size": 96, "intermediate_size": 72}])
def test_layers_of_any_shape_are_computed(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Also where the processor has bfloat16, for which bitsandbytes has a kernel that takes only some shapes."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    model = load(save_model(tmp_path / "model", **changes), "nf4").model
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert layers
    for layer in layers:
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        inputs = torch.randn(5, layer.in_features)
        with torch.inference_mode():
            expected = torch.nn.functional.linear(inputs, weight, layer.bias)
            answers = layer(inputs)
        assert (answers - expected).abs().max() < 0.02 * expected.abs().max()


def test_settings_reach_bitsandbytes() -> None:
    def of(**changes: Any) -> Any:
        return quantization_config(ModelSpec(path="x", **changes), torch.bfloat16)

    assert of() is None
    assert of(quantization="int8", int8_threshold=3.5).llm_int8_threshold == 3.5
    four = of(quantization="fp4", double_quantization=True)
    assert (four.bnb_4bit_quant_type, four.bnb_4bit_use_double_quant) == ("fp4", True)
    assert four.bnb_4bit_compute_dtype == torch.bfloat16


def test_only_the_notice_of_each_product_is_silenced(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(folder, "int8")
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    logger.warning("MatMul8bitLt: inputs will be cast from %s to float16 during quantization", torch.float32)
    logger.warning("something else is wrong")
    assert [record.message for record in caplog.records if record.name == logger.name] == ["something else is wrong"]


def test_counts_agree_with_transformers(folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert num_parameters(model) == model.num_parameters()
    assert bytes_now(model) == model.get_memory_footprint()
