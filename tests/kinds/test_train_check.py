"""What is wrong with a training job is said before anything is started, with the field and what to write instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hfray.errors import SpecError
from hfray.kinds.train_check import CheckedTraining, check_training
from hfray.spec.train import TrainJob
from hfray.training.plan import Wanted
from tests.models.support import letter_tokenizer, save_model
from tests.training.support import PLAIN, plain_rows, write_tokens


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model")
    letter_tokenizer(256).save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def job(folder: Path, **changes: Any) -> TrainJob:
    spec: dict[str, Any] = {
        "kind": "train",
        "name": "check",
        "model": {"path": str(folder / "model")},
        "task": "text-classification",
        "input": {"train": "rows.csv"},
        "output": {"path": str(folder / "out")},
    }
    return TrainJob.model_validate(spec | changes)


def check(folder: Path, **changes: Any) -> CheckedTraining:
    return check_training(job(folder, **changes))


def test_a_right_job_is_settled(folder: Path) -> None:
    checked = check(folder, workers={"min": 1, "max": 4}, global_batch_size=8, trainer={"learning_rate": "1e-3"})
    assert checked.trainer == {"learning_rate": 1e-3}
    assert checked.world_sizes == (1,)  # eight examples of one worker at once are the whole batch
    assert checked.max_length == 64
    assert checked.separation is None


@pytest.mark.parametrize(
    ("batch", "workers", "sizes", "note"),
    [
        (48, {"min": 2, "max": 3}, (2, 3), ""),
        (32, {"min": 2}, (2,), ""),
        (32, {"min": 2, "max": 8}, (2,), "workers.max: 8 is not reached, the run takes 2 throughout: 3 workers cannot "
         "share global_batch_size 32 with trainer.per_device_train_batch_size 8 (4 can: workers.min starts with more)"),
        (96, {"min": 1, "max": 8}, (1, 2, 3, 4), "workers.max: 8 is not reached, the run takes 1 to 4: 5 workers "
         "cannot share global_batch_size 96 with trainer.per_device_train_batch_size 8 (6 can: workers.min starts with "
         "more)"),
        (8, {"min": 1, "max": 4}, (1,), "workers.max: 4 is not reached, the run takes 1 throughout: 2 workers cannot "
         "share global_batch_size 8 with trainer.per_device_train_batch_size 8"),
    ],
)  # fmt: skip
def test_a_range_of_workers_has_no_gap_and_its_end_is_told(
    folder: Path, batch: int, workers: dict[str, int], sizes: tuple[int, ...], note: str
) -> None:
    checked = check(folder, workers=workers, global_batch_size=batch)
    assert (checked.world_sizes, checked.note) == (sizes, note)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"trainer": {"learning_rte": 1}},
            r"trainer\.learning_rte: is no training argument, did you mean learning_rate",
        ),
        ({"trainer": {"logging_strategy": "minutes"}}, r"trainer\.logging_strategy: unknown value 'minutes'"),
        ({"method": {"name": "lora", "target_modules": ["q_proj"]}}, r"has no module 'q_proj'"),
        ({"workers": {"min": 3}}, r"global_batch_size: 32 is no multiple of 24.*or .* workers"),
        ({"max_length": 128}, r"max_length: 128 is above what the model takes, 64"),
        ({"workers": {"min": 2, "gpus": 0.5}}, r"workers\.gpus: 0\.5; workers that train together cannot share a GPU"),
        ({"workers": {"min": 1, "gpus": 2}}, r"workers\.gpus: 2; a training worker uses one GPU"),
        ({"deepspeed": "nowhere.json"}, r"deepspeed: nowhere\.json cannot be read"),
        ({"deepspeed": {"train_batch_size": 4}}, r"deepspeed: train_batch_size is 4, but global_batch_size is 32"),
        (
            {"deepspeed": {"gradient_accumulation_steps": 4}, "global_batch_size": 48, "workers": {"min": 2, "max": 3}},
            r"gradient_accumulation_steps is 4, but what follows from global_batch_size and workers is 3",
        ),
        ({"deepspeed": {"zero_optimization": {"mics_shard_size": 2}}}, r"deepspeed: .*mics_shard_size cannot be saved"),
        ({"trainer": {"fp16": True}}, r"trainer\.fp16: is for GPUs .* on CPUs use trainer\.bf16: true"),
        ({"deepspeed": {"fp16": {"enabled": True}}}, r"deepspeed: fp16\.enabled: is for GPUs"),
        ({"trainer": {"optim": "adafactor"}}, r"trainer\.optim: adafactor keeps states that cannot be saved"),
        (
            {"trainer": {"per_device_train_batch_size": 0}},
            r"trainer\.per_device_train_batch_size: must be 1 or more, not 0",
        ),
        ({"trainer": {"per_device_eval_batch_size": -1}}, r"per_device_eval_batch_size: must be 1 or more, not -1"),
        ({"trainer": {"warmup_steps": -1}}, r"trainer\.warmup_steps: must be 0 or more, not -1"),
        ({"trainer": {"report_to": ["wandbb"]}}, r"report_to: unknown name 'wandbb', did you mean wandb\?"),
        ({"trainer": {"learning_rate": -1}}, r"trainer\.learning_rate: must not be below 0, and is -1"),
        ({"trainer": {"num_train_epochs": 0}}, r"trainer\.num_train_epochs: must be above 0, not 0"),
        (
            {"trainer": {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"cycles": 2}}},
            r"trainer\.lr_scheduler_kwargs: cosine does not take them",
        ),
    ],
)
def test_mistakes_are_named(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check(folder, **changes)


@pytest.mark.parametrize(
    ("task", "metric", "known"),
    [
        ("text-classification", "eval_acuracy", r" have no 'acuracy', did you mean accuracy\?"),
        ("text-classification", "perplexity", r" have no 'perplexity'; known: loss, accuracy, macro_f1"),
        ("fill-mask", "accuracy", r" have no 'accuracy'; known: loss, perplexity"),
        ("text-ranking", "mrr@10", r" have no 'mrr@10'; known: loss"),
    ],
)
def test_a_metric_that_no_evaluation_has_is_refused(folder: Path, task: str, metric: str, known: str) -> None:
    rows = {"train": "rows.csv", "validation": "rows.csv"}
    with pytest.raises(SpecError, match=r"trainer\.metric_for_best_model: evaluations of " + task + known):
        check(folder, task=task, input=rows, trainer={"metric_for_best_model": metric})
    for good in ("loss", "eval_loss", "accuracy"):
        check(folder, input=rows, trainer={"metric_for_best_model": good})


def test_evaluations_of_tokens_have_no_metrics_of_rows(folder: Path) -> None:
    tokens = write_tokens(str(folder / "tokens"), {"train": [plain_rows(10)]}, PLAIN)
    parts = {"train": "rows.csv", "validation": tokens}
    with pytest.raises(SpecError, match=r"no 'accuracy' \(input\.validation is a folder of tokens\); known: loss"):
        check(folder, input=parts, trainer={"metric_for_best_model": "accuracy"})


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model" / "model.safetensors").rename(folder / "model" / "pytorch_model.bin")
    with pytest.raises(SpecError, match=r"has no model\.safetensors; pickled weights can run code"):
        check(folder)


def test_adapters_and_quantised_weights_are_refused(folder: Path) -> None:
    config = json.loads((folder / "model" / "config.json").read_text())
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    (folder / "model" / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    with pytest.raises(SpecError, match=r"weights of .*model are quantised \(nf4\) .* method: qlora"):
        check(folder)
    (folder / "model" / "model.safetensors").unlink()
    (folder / "model" / "adapter_config.json").write_text("{}")
    with pytest.raises(SpecError, match=r"model\.path: .*model is an adapter; merge it first \(hfray explain export\)"):
        check(folder)


def test_an_architecture_that_mixes_packed_documents_is_refused(folder: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 300}
    packed = {"task": "text-generation", "mode": {"name": "packed", "append_eos": False}, "max_length": 64}
    model = {"path": str(folder / "tokenizer"), "config": {"model_type": "mamba", **sizes}}
    with pytest.raises(SpecError, match="packed documents"):
        check(folder, model=model, **packed)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}
    model["config"] = {"model_type": "llama", **sizes, **heads}
    assert check(folder, model=model, **packed).separation == "position_ids"


def test_a_tokenised_folder_takes_no_words_about_rows(folder: Path) -> None:
    tokens = write_tokens(str(folder / "tokens"), {"train": [plain_rows(10)]}, PLAIN)
    with pytest.raises(SpecError, match=r"input\.where: .* is a tokenised folder"):
        check(folder, input={"train": {"path": tokens, "where": "a > 1"}})
    with pytest.raises(SpecError, match=r"input\.train: the tokens were made by the tokenizer of letters"):
        check(folder, input={"train": tokens})


def test_a_file_of_deepspeed_is_read(folder: Path) -> None:
    path = folder / "zero.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 2}}))
    checked = check(folder, deepspeed=str(path))
    path.write_text("{}")  # what was checked is what is used
    assert checked.job.deepspeed == str(path)
    assert checked.deepspeed == Wanted({"zero_optimization": {"stage": 2}}, str(path))
    path.write_text(json.dumps({"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}}))
    polynomial = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1e-4}}
    check(folder, deepspeed=str(path), trainer=polynomial)  # above the rate that is meant where nothing is said
    path.write_text("[]")
    with pytest.raises(SpecError, match="must hold a mapping"):
        check(folder, deepspeed=str(path))
