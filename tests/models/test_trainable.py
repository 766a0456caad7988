"""Models that are to be trained: their configuration, what an adapter stands beside, and what requires gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from hfray.errors import SpecError
from hfray.models.source import resolve_source
from hfray.models.targets import on_meta, targets_of
from hfray.models.trainable import Head, Vocabulary, load_trainable, training_config
from hfray.spec.methods import FullSpec, LoraSpec, QloraSpec
from hfray.spec.train import BaseModelSpec
from tests.models.support import save_model

CLASSIFIER = "AutoModelForSequenceClassification"
WORDS = Vocabulary(193, 0, None, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model")


def config_of(folder: Path, head: Head, **changes: Any) -> Any:
    spec = BaseModelSpec(path=str(folder), **changes)
    return training_config(spec, resolve_source(str(folder), None), head, WORDS)


def test_a_head_is_made_for_the_labels_at_hand(folder: Path) -> None:
    config = config_of(
        folder, Head(CLASSIFIER, ("no", "yes", "maybe", "?"), problem_type="single_label_classification")
    )
    assert config.id2label == {0: "no", 1: "yes", 2: "maybe", 3: "?"}
    assert config.label2id["?"] == 3
    assert config.problem_type == "single_label_classification"
    assert config_of(folder, Head(CLASSIFIER, num_labels=7)).num_labels == 7


def test_values_of_the_configuration_are_checked_by_name(folder: Path) -> None:
    changed = config_of(folder, Head(CLASSIFIER), config={"num_hidden_layers": 1})
    assert changed.num_hidden_layers == 1
    with pytest.raises(SpecError, match=r"model\.config\.num_hiden_layers: bert has no such value, did you mean"):
        config_of(folder, Head(CLASSIFIER), config={"num_hiden_layers": 1})


def test_a_model_from_scratch_takes_the_tokenizers_words() -> None:
    spec = BaseModelSpec(config={"model_type": "llama", "hidden_size": 32, "num_attention_heads": 2})
    config = training_config(spec, None, Head("AutoModelForCausalLM"), Vocabulary(77, 3, 1, 2))
    assert isinstance(config, LlamaConfig)
    assert (config.vocab_size, config.pad_token_id, config.eos_token_id, config.bos_token_id) == (77, 3, 1, 2)
    unknown = BaseModelSpec(config={"model_type": "lama"})
    with pytest.raises(SpecError, match=r"unknown architecture 'lama', did you mean llama"):
        training_config(unknown, None, Head("AutoModelForCausalLM"), WORDS)


def test_a_vocabulary_that_the_model_does_not_have_is_refused(folder: Path) -> None:
    spec = BaseModelSpec(path=str(folder))
    with pytest.raises(SpecError, match="its vocabulary has 193 entries, but the tokenizer 200"):
        training_config(spec, resolve_source(str(folder), None), Head(CLASSIFIER), Vocabulary(200, 0, None, None))


def loaded(folder: Path, method: Any, seed: int = 0, labels: tuple[str, ...] = ("a", "b")) -> Any:
    head = Head(CLASSIFIER, labels)
    config = config_of(folder, head)
    where = None if isinstance(method, FullSpec) else targets_of(method, on_meta(config, CLASSIFIER), CLASSIFIER)
    return load_trainable(
        BaseModelSpec(path=str(folder)), method, resolve_source(str(folder), None), config, CLASSIFIER,
        dtype=torch.float32, device=torch.device("cpu"), seed=seed, targets=where,
    )  # fmt: skip


def test_new_weights_depend_on_the_seed_alone(folder: Path) -> None:
    first, again, other = (loaded(folder, FullSpec(), seed) for seed in (1, 1, 2))
    torch.testing.assert_close(first.classifier.weight, again.classifier.weight, rtol=0, atol=0)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert all(parameter.requires_grad for parameter in first.parameters())
    # A head that fits is kept.
    kept = loaded(folder, FullSpec(), labels=("cold", "warm", "hot"))
    assert torch.equal(kept.classifier.weight, loaded(folder, FullSpec(), 5, ("x", "y", "z")).classifier.weight)


@pytest.mark.parametrize("method", [LoraSpec(r=2), LoraSpec(r=2, dora=True, rslora=True), QloraSpec(r=2)])
def test_of_an_adapted_model_the_adapter_and_the_head_are_trained(folder: Path, method: Any) -> None:
    model = loaded(folder, method)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name or "classifier.modules_to_save" in name for name in trained)
    assert any("classifier.modules_to_save" in name for name in trained)
    in_4_bits = [name for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"]
    assert bool(in_4_bits) == isinstance(method, QloraSpec)
    assert not any("classifier" in name for name in in_4_bits)
