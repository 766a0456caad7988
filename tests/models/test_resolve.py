"""A folder that training left loads without another word: adapter, base, labels and tokenizer find each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hfray.errors import SpecError
from hfray.models.load import LoadedModel, load_model
from hfray.models.resolve import resolve_model
from hfray.models.result import AdapterFacts, BaseFacts, ResultFacts, write_facts
from hfray.models.source import resolve_source
from hfray.spec.sections import ModelSpec
from hfray.tasks import TASKS
from tests.hub_stand_in import Repo, point_at, serve_hub
from tests.models.support import letter_tokenizer, save_model
from tests.models.test_adapter import logits, save_adapter, wanted

torch.set_num_threads(1)

TASK = TASKS["text-classification"]
LABELS = ("a", "b", "c", "d", "e")
COMMIT, ADAPTER_COMMIT = "a" * 40, "b" * 40


def save_result(base: Path, folder: Path, facts: BaseFacts | None = None) -> Any:
    """What a LoRA training of a head with five labels leaves; returns PEFT's model."""
    adapted = save_adapter(base, folder, labels=5, task_type="SEQ_CLS")
    adapted.config.id2label = dict(enumerate(LABELS))
    adapted.config.label2id = {label: index for index, label in enumerate(LABELS)}
    adapted.config.save_pretrained(folder)
    letter_tokenizer(32).save_pretrained(folder)
    base_facts = facts or BaseFacts.of(resolve_source(str(base), None))
    adapter = AdapterFacts(merged=False, method="LORA")
    write_facts(folder, ResultFacts(kind="train", name="x", base=base_facts, adapter=adapter, labels=LABELS))
    (folder / "_SUCCESS").write_text("{}")
    return adapted


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_model(tmp_path / "base", "AutoModel", labels=())


def load(path: Path | str, **changes: Any) -> LoadedModel:
    return load_model(ModelSpec(path=str(path), **{"dtype": "float32", **changes}), TASK)


def test_an_adapter_finds_its_base_its_labels_and_its_tokenizer(tmp_path: Path, base: Path) -> None:
    expected = wanted(save_result(base, tmp_path / "lora"))
    loaded = load(tmp_path / "lora")
    np.testing.assert_allclose(logits(loaded), expected, atol=1e-4)
    assert loaded.info.labels == LABELS
    assert loaded.processor.tokenizer.model_max_length == 32
    assert (loaded.facts.path, loaded.facts.adapter) == (str(base), str(tmp_path / "lora"))
    attached = load(tmp_path / "lora", merge_adapter=False)
    np.testing.assert_allclose(logits(attached), expected, atol=1e-4)


def test_labels_are_found_without_a_configuration(tmp_path: Path, base: Path) -> None:
    expected = wanted(save_result(base, tmp_path / "lora"))
    (tmp_path / "lora" / "config.json").unlink()
    loaded = load(tmp_path / "lora")
    assert loaded.info.labels == LABELS
    np.testing.assert_allclose(logits(loaded), expected, atol=1e-4)


def test_an_adapter_of_somebody_else_names_its_base_too(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base")
    expected = wanted(save_adapter(base, tmp_path / "lora"))
    loaded = load(tmp_path / "lora")
    np.testing.assert_allclose(logits(loaded), expected, atol=1e-4)
    assert loaded.info.labels == ("cold", "warm", "hot")


def test_both_are_pinned_on_the_hub(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = wanted(save_result(base, tmp_path / "lora", BaseFacts(path="org/base", revision=COMMIT)))
    newer = save_model(tmp_path / "newer")
    with serve_hub() as hub:
        hub.repos["org/base"] = Repo({COMMIT: base, "c" * 40: newer}, {"main": "c" * 40})
        hub.repos["org/lora"] = Repo({ADAPTER_COMMIT: tmp_path / "lora"}, {"main": ADAPTER_COMMIT})
        point_at(monkeypatch, hub.endpoint, tmp_path / "cache")
        found = resolve_model(ModelSpec(path="org/lora", revision="main"))
        loaded = load("org/lora")
    assert found.spec == ModelSpec(
        path="org/base", revision=COMMIT, adapter="org/lora", adapter_revision=ADAPTER_COMMIT
    )
    np.testing.assert_allclose(logits(loaded), expected, atol=1e-4)


def test_a_base_that_has_changed_is_refused(tmp_path: Path, base: Path) -> None:
    save_result(base, tmp_path / "lora")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-5}))
    with pytest.raises(SpecError, match=r"has changed since the adapter .*lora was trained on it"):
        load(tmp_path / "lora")
    load(base, adapter=str(tmp_path / "lora"))  # whoever says so may have it


def _break(tmp_path: Path, base: Path, how: str) -> ModelSpec:
    lora = tmp_path / "lora"
    spec = ModelSpec(path=str(lora))
    if how == "base gone":
        shutil.rmtree(base)
    elif how == "two models":
        save_model(tmp_path / "whole")
        shutil.copy(tmp_path / "whole" / "model.safetensors", lora)
    elif how == "two adapters":
        shutil.copytree(lora, tmp_path / "other")
        spec = ModelSpec(path=str(lora), adapter=str(tmp_path / "other"))
    elif how == "an adapter below":
        save_result(base, tmp_path / "top", BaseFacts(path=str(lora)))
        spec = ModelSpec(path=str(tmp_path / "top"))
    else:
        (lora / "hfray.json").unlink()
        config = json.loads((lora / "adapter_config.json").read_text())
        (lora / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    return spec


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("base gone", r"the base model of the adapter .*lora: there is no folder .*base; or name its base"),
        ("two models", "holds a whole model and an adapter"),
        ("two adapters", r"is an adapter itself; merge it into its base first \(kind: export\)"),
        ("an adapter below", r"the base of the adapter .*top is an adapter too"),
        ("no name", "does not say what its base model is; name its base as model.path"),
    ],
)
def test_what_cannot_be_put_together(tmp_path: Path, base: Path, how: str, message: str) -> None:
    save_result(base, tmp_path / "lora")
    with pytest.raises(SpecError, match=message):
        resolve_model(_break(tmp_path, base, how))


def test_an_adapter_of_the_hub_cannot_name_a_folder_here(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_result(base, tmp_path / "lora")
    with serve_hub() as hub:
        hub.repos["org/lora"] = Repo({ADAPTER_COMMIT: tmp_path / "lora"}, {"main": ADAPTER_COMMIT})
        point_at(monkeypatch, hub.endpoint, tmp_path / "cache")
        with pytest.raises(SpecError, match="a folder of its author's machine; name its base"):
            resolve_model(ModelSpec(path="org/lora"))
