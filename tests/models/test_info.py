"""What is known of a model before its weights are loaded: heads, labels, limits, generation defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors.torch import save_file

from hfray.errors import SpecError
from hfray.models.info import check_model, load_config, model_info
from hfray.models.load import load_processor
from hfray.models.source import ModelSource, resolve_source
from hfray.tasks import TASKS
from tests.models.support import letter_tokenizer, save_model
from tests.tasks.support import trained_minilm

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def source_of(
    folder: Path, config: Any, *, tokenizer_limit: int | None = None, architecture: str | None = None
) -> ModelSource:
    """A folder with a configuration, weights that nobody reads, and perhaps a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    if architecture is not None:
        config.architectures = [architecture]
    config.save_pretrained(folder)
    save_file({}, folder / "model.safetensors")
    if tokenizer_limit is not None:
        letter_tokenizer(tokenizer_limit).save_pretrained(folder)
    return resolve_source(str(folder), None)


def info_of(source: ModelSource, task: str = "feature-extraction") -> Any:
    return model_info(source, load_config(source), tokenizer=load_processor(source, TASKS[task]).tokenizer)


VISION = {**SMALL, "image_size": 32, "patch_size": 16}

ARCHITECTURES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "BertModel": (transformers.BertConfig(**SMALL), ("feature-extraction", "sentence-similarity")),
    "BertForSequenceClassification": (
        transformers.BertConfig(**SMALL),
        (
            "feature-extraction",
            "sentence-similarity",
            "text-classification",
            "text-ranking",
            "zero-shot-classification",
        ),
    ),
    "BertForPreTraining": (
        transformers.BertConfig(**SMALL),
        ("feature-extraction", "fill-mask", "sentence-similarity"),
    ),
    "DistilBertForTokenClassification": (
        transformers.DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=32),
        ("feature-extraction", "sentence-similarity", "token-classification"),
    ),
    "GPT2LMHeadModel": (
        transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2),
        ("feature-extraction", "perplexity", "sentence-similarity", "text-generation"),
    ),
    "BartModel": (  # facebook/bart-base: its language model head is its input embedding
        transformers.BartConfig(d_model=32, encoder_layers=1, decoder_layers=1),
        ("feature-extraction", "sentence-similarity", "summarization", "text2text-generation", "translation"),
    ),
    "ViTForImageClassification": (transformers.ViTConfig(**VISION), ("image-classification",)),
    "CLIPModel": (transformers.CLIPConfig(), ("zero-shot-image-classification",)),
    "SiglipModel": (transformers.SiglipConfig(), ("zero-shot-image-classification",)),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_task_asks_for_its_head(tmp_path: Path, architecture: str) -> None:
    config, can_do = ARCHITECTURES[architecture]
    source = source_of(tmp_path / "model", config, architecture=architecture)
    refused = {}
    for name, task in TASKS.items():
        try:
            assert check_model(source, task).model_type == config.model_type
        except SpecError as error:
            refused[name] = str(error)
    assert sorted(set(TASKS) - set(refused)) == sorted(can_do)
    for name, message in refused.items():
        assert f"({architecture}) has no head for task {name}; it can do {', '.join(sorted(can_do))}" in message


def test_a_configuration_that_names_no_architecture_passes_to_the_weights(tmp_path: Path) -> None:
    config = transformers.BertConfig(**SMALL)
    source = source_of(tmp_path / "model", config)
    check_model(source, TASKS["text-classification"])
    with pytest.raises(SpecError, match="has no head for task translation"):
        check_model(source, TASKS["translation"])


def test_pickled_weights_are_refused_unopened(tmp_path: Path, shared_data: Path) -> None:
    source = resolve_source(str(shared_data / "models" / "bert-xsmall-dummy"), None)
    with pytest.raises(SpecError, match=r"only pytorch_model.bin; .* Convert it once with save_pretrained\(\)"):
        check_model(source, TASKS["feature-extraction"])
    transformers.BertConfig(**SMALL).save_pretrained(tmp_path)
    with pytest.raises(SpecError, match="has no weights"):
        check_model(resolve_source(str(tmp_path), None), TASKS["feature-extraction"])


def _write(folder: Path, **changes: Any) -> ModelSource:
    source = source_of(folder, transformers.BertConfig(**SMALL), architecture="BertModel")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return source


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "unheard_of"}, "config.json cannot be used: .*unheard_of"),
        ({"num_attention_heads": [1]}, "config.json cannot be used: .*num_attention_heads"),
        ({"id2label": 3}, "config.json cannot be used"),
        ({"model_type": None, "architectures": None}, "config.json cannot be used"),
    ],
)
def test_a_configuration_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        load_config(_write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


CODE = "import pathlib\npathlib.Path({marker!r}).touch()\nfrom transformers import BertConfig as C, BertModel as M\n"


def test_code_in_the_repository_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    auto_map = {"AutoConfig": "canary.C", "AutoModel": "canary.M", "AutoTokenizer": "canary.T"}
    foreign = _write(tmp_path / "foreign", model_type="my_model", auto_map=auto_map)
    known = _write(tmp_path / "known", auto_map=auto_map)
    tokenizer = _write(tmp_path / "tokenizer")
    letter_tokenizer().save_pretrained(tokenizer.path)
    settings = Path(tokenizer.path) / "tokenizer_config.json"
    settings.write_text(
        json.dumps({"tokenizer_class": "MyTokenizer", "auto_map": {"AutoTokenizer": ["canary.T", None]}})
    )
    for source in (foreign, known, tokenizer):
        (Path(source.path) / "canary.py").write_text(CODE.format(marker=str(marker)))
    with pytest.raises(SpecError, match="needs code from the repository, which hfray does not run") as caught:
        load_config(foreign)
    assert "trust_remote_code" not in str(caught.value)
    assert type(load_config(known)) is transformers.BertConfig
    # tokenizer.json says all that the class of the repository could.
    assert len(load_processor(tokenizer, TASKS["feature-extraction"]).tokenizer) == len(letter_tokenizer())
    assert not marker.exists()


def test_a_model_with_an_adapter_in_its_folder_is_refused(tmp_path: Path) -> None:
    """Transformers would load the adapter's base model, at no commit, in place of what the job names."""
    _write(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/else"}')
    with pytest.raises(SpecError, match=r"holds a PEFT adapter .* name it as model.adapter"):
        load_config(resolve_source(str(tmp_path), None))


@pytest.mark.parametrize(
    ("config", "stated", "limit"),
    [
        (transformers.BertConfig(**SMALL, max_position_embeddings=512), 512, 512),
        (transformers.BertConfig(**SMALL, max_position_embeddings=512), int(1e30), 512),
        (transformers.RobertaConfig(**SMALL, max_position_embeddings=514), int(1e30), 512),
        (transformers.XLMRobertaConfig(**SMALL, max_position_embeddings=514), int(1e30), 512),
        (transformers.MPNetConfig(**SMALL, max_position_embeddings=514), int(1e30), 512),
        (transformers.DistilBertConfig(max_position_embeddings=128), 512, 128),
        (transformers.T5Config(d_model=32, num_layers=1), 512, 512),
        (transformers.T5Config(d_model=32, num_layers=1, n_positions=512), int(1e30), None),
        (transformers.GPT2Config(n_positions=256), int(1e30), 256),
        (transformers.LlamaConfig(**SMALL, max_position_embeddings=4096), int(1e30), 4096),
        (transformers.BartConfig(max_position_embeddings=1024), int(1e30), 1024),
        (transformers.XLNetConfig(d_model=32, n_head=2), int(1e30), None),
        (transformers.CLIPConfig(), 77, 77),
        (transformers.CLIPConfig(), int(1e30), 77),
        (transformers.SiglipConfig(), int(1e30), 64),
    ],
    ids=lambda value: getattr(value, "model_type", str(value)),
)
def test_max_length(tmp_path: Path, config: Any, stated: int, limit: int | None) -> None:
    assert info_of(source_of(tmp_path, config, tokenizer_limit=stated)).max_length == limit


def test_the_trained_model_stops_at_256() -> None:
    info = info_of(resolve_source(str(trained_minilm()), None))
    assert info.max_length == 256
    assert (info.pooling, info.normalize, dict(info.prompts)) == ("mean", True, {})
    assert info.architectures == ("BertModel",)


@pytest.mark.slow
def test_labels(tmp_path: Path) -> None:
    source = resolve_source(str(save_model(tmp_path / "m", labels=[f"label {i}" for i in range(12)])), None)
    config = check_model(source, TASKS["text-classification"])
    assert model_info(source, config).labels == tuple(f"label {i}" for i in range(12))  # 10 after 9, not after 1
    assert model_info(source, config, labels=("a", "b")).labels == ("a", "b")


def test_generation_defaults_of_old_and_new_folders(tmp_path: Path) -> None:
    source = source_of(tmp_path, transformers.BartConfig(d_model=32), architecture="BartForConditionalGeneration")
    config = json.loads((tmp_path / "config.json").read_text())
    old = {"num_beams": 4, "length_penalty": 2.0, "prefix": " ", "task_specific_params": {"summarization": {"x": 1}}}
    (tmp_path / "config.json").write_text(json.dumps({**config, **old}))
    generation = model_info(source, load_config(source)).generation
    assert {key: generation[key] for key in old} == old
    assert generation["eos_token_id"] == 2
    (tmp_path / "generation_config.json").write_text(json.dumps({"num_beams": 6, "forced_bos_token_id": None}))
    source = resolve_source(str(tmp_path), None)
    assert model_info(source, load_config(source)).generation["num_beams"] == 6
    assert model_info(source, load_config(source)).is_encoder_decoder
