"""Adapters of one model, row by row, against PEFT with each of them alone."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from hfray.engines.batch import BatchEngine
from hfray.errors import EngineError, ItemError
from hfray.models.load import load_model
from hfray.models.lora import AdapterBank
from hfray.spec.sections import ModelSpec
from hfray.tasks import TASKS
from hfray.types import Item, Logits
from tests.engines.continuous.support import model_of
from tests.models.lora_support import save_lora, source_of
from tests.models.support import loaded, save_model
from tests.tasks.support import bert_config, tiny_model

LINEAR = ["q_proj", "v_proj", "up_proj"]


@pytest.fixture
def adapted(tmp_path: Path) -> dict[str, Any]:
    """Name -> PEFT's model; the folders are below tmp_path."""
    return {
        name: save_lora(model_of("llama"), tmp_path / name, seed=seed, r=seed + 2, target_modules=LINEAR[: seed + 1])
        for seed, name in enumerate("abc")
    }


def bank(model: Any, folder: Path, names: str = "abc", most: int = 2) -> AdapterBank:
    return AdapterBank(model, {name: source_of(folder / name) for name in names}, device="cpu", max_loaded=most)


@torch.inference_mode()
def test_rows_of_one_step_have_their_own_adapters(tmp_path: Path, adapted: dict[str, Any]) -> None:
    model = copy.deepcopy(model_of("llama"))
    ids = torch.arange(3, 27).view(4, 6)
    wanted = [adapted["a"](ids[:1]).logits, model(ids[1:2]).logits, adapted["b"](ids[2:3]).logits]
    both = bank(model, tmp_path)
    both.ensure(["a", "b"])
    # As one packed row, which restarts its positions; every token sees only itself, so that documents stay apart.
    single = ids[:3].reshape(1, -1)
    apart = torch.full((18, 18), float("-inf"))
    for start in range(0, 18, 6):
        apart[start : start + 6, start : start + 6] = torch.full((6, 6), float("-inf")).triu(1)
    with both.routed([("a", torch.arange(6)), ("b", torch.arange(12, 18))]):
        found = model(
            single, attention_mask=apart[None, None], position_ids=torch.arange(6).repeat(3)[None]
        ).logits  # fmt: skip
    torch.testing.assert_close(found, torch.cat(wanted, dim=1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(ids[1:2]).logits, wanted[1]), "outside, nothing is added"


@torch.inference_mode()
def test_the_least_recently_used_goes_and_comes_back(tmp_path: Path, adapted: dict[str, Any]) -> None:
    model = copy.deepcopy(model_of("llama"))
    ids = torch.arange(3, 9)[None]
    three = bank(model, tmp_path)
    for name, loads in (("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4)):
        three.ensure([name])
        assert three.loads == loads, name
        with three.routed([(name, None)]):
            torch.testing.assert_close(model(ids).logits, adapted[name](ids).logits, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="3 adapters at once"):
        three.ensure("abc")
    with pytest.raises(KeyError):
        three.ensure(["unheard of"])
    assert three.names == ("a", "b", "c")


def test_classifiers_have_heads_of_their_own(tmp_path: Path) -> None:
    """In the batch engine, which groups by adapter; one that does not fit fails its own rows."""
    model = tiny_model("AutoModelForSequenceClassification", bert_config(labels=("x", "y", "z"), vocab_size=99))
    adapted = {
        name: save_lora(model, tmp_path / name, seed=seed, target_modules=["query"], task_type="SEQ_CLS")
        for seed, name in enumerate("ab")
    }
    other = tiny_model("AutoModelForSequenceClassification", bert_config(labels=("x", "y"), vocab_size=99))
    save_lora(other, tmp_path / "c", target_modules=["query"], task_type="SEQ_CLS")
    ids = np.arange(5, 12)
    names = ["a", None, "b", "c", "a", "unheard of"]
    items = [Item("text", {"input_ids": ids}, Logits(), adapter=name) for name in names]
    ready = loaded(copy.deepcopy(model))
    ready.adapters = bank(ready.model, tmp_path)
    engine = BatchEngine(ready)
    try:
        outputs = engine.run(items)
    finally:
        engine.close()
    with torch.inference_mode():
        for name, output in zip(names, outputs, strict=True):
            if name in ("c", "unheard of"):
                assert isinstance(output, ItemError)
                continue
            wanted = (model if name is None else adapted[name])(torch.tensor(ids)[None]).logits[0]
            assert isinstance(output, dict)
            np.testing.assert_allclose(output["logits"], wanted.numpy(), atol=1e-4)
    assert "has other sizes" in str(outputs[3])
    assert isinstance(outputs[5], ItemError)
    assert outputs[5].type == "UnknownAdapter"
    assert engine.stats.computed_items == 3, "equal items of one adapter are computed once"


def test_an_adapter_that_is_gone_or_another_one_is_said(tmp_path: Path, adapted: dict[str, Any]) -> None:
    """At the start, and when it is wanted, which may be hours later."""
    model = copy.deepcopy(model_of("llama"))
    sources = {name: source_of(tmp_path / name) for name in "abc"}
    each = bank(model, tmp_path)
    weights = [tmp_path / name / "adapter_model.safetensors" for name in "ab"]
    weights[0].unlink()
    shutil.copy(tmp_path / "c" / "adapter_model.safetensors", weights[1])
    with pytest.raises(EngineError, match=r"adapter_model\.safetensors is missing"):
        each.ensure(["a"])
    with pytest.raises(EngineError, match=r"adapter_model\.safetensors has changed"):
        each.ensure(["b"])
    each.ensure(["c"])
    assert each.loads == 1
    with pytest.raises(EngineError, match="has other files"):
        AdapterBank(model, sources, device="cpu", max_loaded=2)


def test_a_head_that_the_model_lacks_comes_from_the_adapter(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", "AutoModel")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    adapted = save_lora(model, tmp_path / "a", target_modules=["query"], task_type="SEQ_CLS")
    save_lora(model, tmp_path / "b", target_modules=["query"])
    adapters: Any = {name: {"path": str(tmp_path / name)} for name in "ab"}
    spec = ModelSpec(path=str(base), dtype="float32", adapters=adapters)
    ready = load_model(spec, TASKS["text-classification"], labels=("x", "y", "z"))
    ids = np.arange(5, 12)
    engine = BatchEngine(ready)
    try:
        found, without, none = engine.run(
            [Item("text", {"input_ids": ids}, Logits(), adapter=n) for n in ("a", "b", None)]
        )
    finally:
        engine.close()
    with torch.inference_mode():
        wanted = adapted(torch.tensor(ids)[None]).logits[0]
    assert isinstance(found, dict)
    np.testing.assert_allclose(found["logits"], wanted.numpy(), atol=1e-4)
    assert "they would be random" in str(without)
    assert isinstance(none, ItemError)
    assert none.type == "NoAdapter"
