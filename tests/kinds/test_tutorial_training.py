"""The training jobs of jobs/ as they stand there, a few steps of each: tiny models of the same architectures and rows
with the same columns are in place of what a hub would give, and CPUs in place of GPUs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoConfig

from hfray.models.load import load_model
from hfray.spec.sections import ModelSpec
from hfray.tasks import TASKS
from tests import test_examples
from tests.documents import JOBS, ROOT
from tests.kinds.train_office import TrainOffice
from tests.models.support import letter_tokenizer
from tests.tasks.support import tiny_model

pytestmark = pytest.mark.slow

STEPS = 2
PREMISES = [f"the cat number {i} sat on a mat" for i in range(96)]
PAIRS = {"premise": PREMISES, "hypothesis": [each[8:20] for each in PREMISES], "label": [i % 3 for i in range(96)]}
QUESTIONS = {
    "id": PREMISES, "title": PREMISES, "context": PREMISES, "question": ["where did it sit?"] * 96,
    "answers": [{"text": ["a mat"], "answer_start": [each.index("a mat")]} for each in PREMISES],
}  # fmt: skip
BANKING = {"text": PREMISES, "category": [f"intent {i % 5}" for i in range(96)]}
DATA_SETS: dict[str, Mapping[str, list[Any]]] = {
    "nyu-mll/glue": {**PAIRS, "idx": list(range(96))},
    "facebook/xnli": PAIRS,
    "rajpurkar/squad": QUESTIONS,
    "Abirate/english_quotes": {"quote": PREMISES, "author": PREMISES, "tags": [["cats"]] * 96},
    "Salesforce/wikitext": {"text": ["", *(" ".join(PREMISES) for _ in range(30))]},
    "data/banking77/train.csv": BANKING,
    "data/banking77/test.csv": BANKING,
}
_BERT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {  # id: (class of its weights, configuration)
    "google-bert/bert-base-uncased": ("AutoModelForMaskedLM", {"model_type": "bert", **_BERT}),
    "FacebookAI/xlm-roberta-base": (
        "AutoModelForMaskedLM", {"model_type": "xlm-roberta", "max_position_embeddings": 514, **_BERT},
    ),
    "distilbert/distilbert-base-uncased": (
        "AutoModelForMaskedLM", {"model_type": "distilbert", "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2},
    ),
    "openai-community/gpt2": ("AutoModelForCausalLM", {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2}),
    "facebook/opt-350m": (
        "AutoModelForCausalLM",
        {
            "model_type": "opt", "hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "do_layer_norm_before": False,
        },
    ),
    "google-t5/t5-small": (
        "AutoModelForSeq2SeqLM",
        {"model_type": "t5", "d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2, "d_kv": 16},
    ),
}  # fmt: skip
METRICS = {
    "mnli": {"accuracy", "macro_f1"}, "xlm-roberta": {"accuracy", "macro_f1"}, "banking-lora": {"accuracy", "macro_f1"},
    "squad": {"exact_match", "f1"}, "german-english": {"bleu", "chrf"}, "gpt2-wikitext": {"perplexity"},
    "opt-lora": set(),
}  # fmt: skip
TUTORIAL = {job["name"]: job for path in JOBS if (job := yaml.safe_load(path.read_text("utf-8")))["kind"] == "train"}


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainOffice:
    monkeypatch.chdir(ROOT)
    return TrainOffice(tmp_path, monkeypatch)


def save(hub_id: str, folder: Path) -> Path:
    """A pre-trained model: weights without the head that is tuned."""
    auto_model, shape = MODELS[hub_id]
    tokenizer = letter_tokenizer(1024)
    tokenizer.eos_token = tokenizer.sep_token
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 0}
    config = AutoConfig.for_model(**shape, vocab_size=len(tokenizer), **special)
    tiny_model(auto_model, config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def at_hand(job: Mapping[str, Any], office: TrainOffice) -> dict[str, Any]:
    """The job with what there is here; all that it says of the training stays."""
    model, spec = job["model"]["path"], {key: job[key] for key in job if key not in ("output", "workers")}
    if model in MODELS:
        spec["model"] = {"path": str(save(model, office.folder / "model"))}
    spec["input"] = {
        part: {
            **{key: each[key] for key in ("columns", "where") if key in each},
            "path": office.write(f"{part}.parquet", **DATA_SETS[each["path"]])
            if each["path"] in DATA_SETS
            else each["path"],
        }
        for part, each in job["input"].items()
    }
    spec["trainer"] = job["trainer"] | {"max_steps": STEPS, "logging_steps": 1}
    return spec


def test_each_training_job_is_here_and_its_rows_have_the_data_sets_columns() -> None:
    assert set(METRICS) == set(TUTORIAL)
    for name, rows in DATA_SETS.items():
        assert set(rows) == set(test_examples.DATA_SETS[name]), name


@pytest.mark.parametrize("name", METRICS)
def test_a_job_of_the_tutorial_trains(office: TrainOffice, name: str) -> None:
    job = TUTORIAL[name]
    office.world_size = job["workers"]["min"]
    report = office.run(**at_hand(job, office), workers={"min": office.world_size})
    assert report.status == "complete"
    assert report.training is not None
    assert report.training.step == STEPS
    assert report.training.precision == ("bf16" if job["trainer"].get("bf16") else "fp32")
    assert all(point.loss is not None and math.isfinite(point.loss) for point in report.training.points)
    assert METRICS[name] <= set(report.metrics)
    task = job["task"] if isinstance(job["task"], str) else job["task"]["name"]
    assert load_model(ModelSpec(path=str(office.out)), TASKS[task]).info.architectures
    if "method" in job:
        adapter = json.loads((office.out / "adapter_config.json").read_text())
        asked = job["method"]
        assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (
            asked["r"], asked["alpha"], asked["dropout"]
        )  # fmt: skip
        assert set(asked.get("target_modules", ())) <= set(adapter["target_modules"])
