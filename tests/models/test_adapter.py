"""PEFT adapters: merged and attached, with a head of their own, on quantised models, and those that do not fit."""

from __future__ import annotations

import json
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hfray.engines.batch import BatchEngine
from hfray.errors import SpecError
from hfray.models.adapter import check_adapter
from hfray.models.info import check_model
from hfray.models.load import LoadedModel, load_model
from hfray.models.source import resolve_source
from hfray.spec.sections import ModelSpec
from hfray.tasks import TASKS
from hfray.types import Item, Logits
from tests.hub_stand_in import Repo, point_at, serve_hub
from tests.models.support import save_model
from tests.models.test_load import Canary

torch.set_num_threads(1)

TASK = TASKS["text-classification"]
COMMIT = "e" * 40


def save_adapter(base: Path, folder: Path, *, labels: int = 3, task_type: str | None = None, **changes: Any) -> Any:
    """A LoRA adapter with random weights, saved by PEFT; returns the model it was made on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # imports of the other side
        import peft

        torch.manual_seed(7)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
        settings = {"r": 4, "target_modules": ["query", "value"], "task_type": task_type, **changes}
        adapted = peft.get_peft_model(model, peft.LoraConfig(**settings))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        adapted.save_pretrained(folder)
    return adapted.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("adapter") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    save_adapter(base, base.parent / "lora")
    return base.parent / "lora"


def load(base: Path, adapter: Path | str, labels: tuple[str, ...] | None = None, **changes: Any) -> LoadedModel:
    spec = ModelSpec(path=str(base), adapter=str(adapter), **{"dtype": "float32", **changes})
    return load_model(spec, TASK, labels=labels)


def items() -> list[Item]:
    random = np.random.default_rng(0)
    return [Item("text", {"input_ids": random.integers(5, 90, n)}, Logits()) for n in (3, 8, 20)]


def logits(loaded: LoadedModel) -> Any:
    with closing(BatchEngine(loaded)) as engine:
        return np.array([output["logits"] for output in engine.run(items()) if isinstance(output, dict)])


def wanted(model: Any) -> Any:
    with torch.inference_mode():
        rows = [model(input_ids=torch.from_numpy(item.inputs["input_ids"])[None]).logits[0] for item in items()]
    return torch.stack(rows).numpy()


def test_merged_and_attached_give_pefts_answers(base: Path, adapter: Path) -> None:
    expected = wanted(save_adapter(base, base.parent / "again"))
    merged, attached = load(base, adapter), load(base, adapter, merge_adapter=False)
    np.testing.assert_allclose(logits(merged), expected, atol=1e-4)
    np.testing.assert_allclose(logits(attached), expected, atol=1e-4)
    plain = load_model(ModelSpec(path=str(base), dtype="float32"), TASK)
    assert np.abs(logits(plain) - expected).max() > 0.01
    assert merged.facts.parameters == plain.facts.parameters
    assert attached.facts.parameters > plain.facts.parameters
    assert isinstance(attached.model, transformers.BertForSequenceClassification)
    assert merged.facts.adapter == str(adapter)


def test_on_a_quantised_model_it_stays_attached(base: Path, adapter: Path) -> None:
    expected = wanted(save_adapter(base, base.parent / "again"))
    plain = load_model(ModelSpec(path=str(base), dtype="float32", quantization="nf4"), TASK)
    loaded = load(base, adapter, quantization="nf4")
    assert loaded.facts.parameters > plain.facts.parameters
    error = np.abs(logits(loaded) - expected).mean()
    assert error < np.abs(logits(plain) - expected).mean()


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("how", ["task_type", "modules_to_save"])
def test_an_adapter_with_a_head_of_its_own(tmp_path: Path, how: str, merge: bool) -> None:
    encoder = save_model(tmp_path / "encoder", "AutoModel", labels=())
    changes: dict[str, Any] = {"task_type": "SEQ_CLS"} if how == "task_type" else {"modules_to_save": ["classifier"]}
    expected = wanted(save_adapter(encoder, tmp_path / "lora", labels=5, **changes))
    labels = ("a", "b", "c", "d", "e")
    check_model(
        resolve_source(str(encoder), None), TASK, adapter=resolve_source(str(tmp_path / "lora"), None, kind="adapter")
    )
    loaded = load(encoder, tmp_path / "lora", labels, merge_adapter=merge)
    np.testing.assert_allclose(logits(loaded), expected, atol=1e-4)
    assert loaded.info.labels == labels
    with pytest.raises(SpecError, match=r"does not fit model .*size mismatch.*name them as task\.labels"):
        load(encoder, tmp_path / "lora")


@pytest.mark.parametrize("quantization", ["int8", "nf4", "fp4"])
def test_modules_that_it_brings_whole_are_not_quantised(tmp_path: Path, base: Path, quantization: str) -> None:
    save_adapter(base, tmp_path / "lora", modules_to_save=["classifier", "dense"])
    loaded = load(base, tmp_path / "lora", quantization=quantization)
    assert loaded.facts.quantization == quantization
    saved = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    found = dict(loaded.model.named_parameters())
    whole = [name for name in saved if "lora_" not in name and name.endswith(".weight")]
    assert len(whole) == 1 + 1 + 3 * 2  # the head, the pooler, three layers in each of two blocks
    for name in whole:
        path = name.removeprefix("base_model.model.").removesuffix(".weight")
        assert torch.equal(found[f"{path}.modules_to_save.default.weight"], saved[name]), name


def test_its_head_replaces_one_with_other_labels(tmp_path: Path, base: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.AutoConfig.from_pretrained(base, num_labels=4)
        torch.manual_seed(0)
        four = transformers.BertForSequenceClassification.from_pretrained(
            base, config=config, ignore_mismatched_sizes=True
        )
        four.save_pretrained(tmp_path / "four")
    expected = wanted(save_adapter(tmp_path / "four", tmp_path / "lora", labels=4, task_type="SEQ_CLS"))
    loaded = load(base, tmp_path / "lora", ("a", "b", "c", "d"))
    np.testing.assert_allclose(logits(loaded), expected, atol=1e-4)


def test_neither_brings_the_head(tmp_path: Path, adapter: Path) -> None:
    encoder = save_model(tmp_path / "encoder", "AutoModel")
    with pytest.raises(SpecError, match="has no head for task"):
        check_model(
            resolve_source(str(encoder), None), TASK, adapter=resolve_source(str(adapter), None, kind="adapter")
        )
    with pytest.raises(SpecError, match=r"neither it nor the model has weights for classifier\.bias"):
        load(encoder, adapter)


def _drop(adapter: Path, folder: Path, how: str) -> None:
    """A copy of an adapter with something wrong."""
    folder.mkdir()
    config = json.loads((adapter / "adapter_config.json").read_text())
    weights = load_file(adapter / "adapter_model.safetensors")
    if how == "a layer is missing":
        weights = {key: value for key, value in weights.items() if "layer.1" not in key}
    elif how == "a layer too many":
        weights |= {
            key.replace("layer.1", "layer.2"): value.clone() for key, value in weights.items() if "layer.1" in key
        }
    elif how == "other modules":
        config["target_modules"] = ["q_proj"]
    elif how == "other rank":
        config["r"] = 8
    elif how == "virtual tokens":
        config |= {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 8}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(weights, folder / "adapter_model.safetensors")
    if how == "truncated":
        (folder / "adapter_model.safetensors").write_bytes(b"\1\0\0\0\0\0\0\0{")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("a layer is missing", r"does not fit model .*missing adapter keys"),
        ("a layer too many", r"no place for base_model\.model\.bert\.encoder\.layer\.2"),
        ("other modules", "does not fit model .*q_proj"),
        ("other rank", "does not fit model .*size mismatch"),
        ("virtual tokens", "PROMPT_TUNING puts tokens before the text"),
        ("truncated", "does not fit model"),
    ],
)
def test_an_adapter_that_does_not_fit(tmp_path: Path, base: Path, adapter: Path, how: str, message: str) -> None:
    _drop(adapter, tmp_path / "bad", how)
    with pytest.raises(SpecError, match=message) as caught:
        load(base, tmp_path / "bad")
    assert "\n" not in str(caught.value)


def test_a_pickled_adapter_is_refused_unopened(tmp_path: Path, base: Path, adapter: Path) -> None:
    marker = tmp_path / "it-ran"
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    torch.save({"weight": Canary(marker)}, folder / "adapter_model.bin")
    with pytest.raises(SpecError, match=r"has no adapter_model.safetensors; pickled weights can run code"):
        load(base, folder)
    with pytest.raises(SpecError, match=r"has no adapter_model.safetensors"):
        check_adapter(resolve_source(str(folder), None, kind="adapter"))
    assert not marker.exists()


def test_an_adapter_from_the_hub(tmp_path: Path, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub() as hub:
        hub.repos["org/lora"] = Repo({COMMIT: adapter}, {"main": COMMIT})
        point_at(monkeypatch, hub.endpoint, tmp_path / "cache")
        loaded = load(base, "org/lora")
    fetched = {line.split(" ", 1)[1] for line in hub.log if "/resolve/" in line}
    assert fetched == {
        f"/org/lora/resolve/{COMMIT}/adapter_config.json",
        f"/org/lora/resolve/{COMMIT}/adapter_model.safetensors",
    }
    np.testing.assert_allclose(logits(loaded), logits(load(base, adapter)), atol=1e-6)
