"""The train job: the example of the issue, every mistake on its line, and what counts for the fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hfray.errors import SpecError
from hfray.spec import load
from hfray.spec.fields import fingerprint
from hfray.spec.load import load_job
from hfray.spec.sections import InputSpec
from hfray.spec.shape import fields
from hfray.spec.train import MODES_OF_TASK, TrainJob, beside_path, training_identity
from hfray.tasks import TASKS
from hfray.tasks.features import MODES
from tests.documents import ROOT, table

GOOD = """\
kind: train
name: banking-lora
model: {path: some/model, revision: abc}
task: {name: text-classification}
method: {name: lora, r: 16, alpha: 32, dropout: 0.05, target_modules: auto}
input:
  train: {path: train.csv, columns: {text: text, label: category}}
  validation: {path: dev.csv}
global_batch_size: 32
trainer: {num_train_epochs: 3, per_device_train_batch_size: 16, learning_rate: 1.0e-3, load_best_model_at_end: true}
deepspeed: auto
workers: {min: 2, max: 8, gpus: 1}
output: {path: out/banking-lora}
"""
JOB: dict[str, Any] = {
    "name": "a",
    "model": {"path": "m"},
    "task": "text-classification",
    "input": {"train": "x.csv"},
    "output": {"path": "out"},
}

MISTAKES = [
    ("name: lora", "name: lroa", "5: method.name: unknown name 'lroa', did you mean lora?"),
    ("r: 16", "rank: 16", "5: method.rank: unknown key; known: name, r, alpha, dropout, target_modules, train_modules, "
     "rslora, dora"),
    ("r: 16", "r: 0", "5: method.r: must be at least 1, not 0"),
    ("target_modules: auto", "target_modules: []", "5: method.target_modules: name at least one module, or write auto"),
    ("{name: text-classification}", "{name: text-clasification}",
     "4: task.name: unknown name 'text-clasification', did you mean text-classification?"),
    ("{name: text-classification}", "feature-extraction", "4: task.name: unknown name 'feature-extraction'; known: "
     "text-classification, text-ranking, token-classification, question-answering, summarization, translation, "
     "text2text-generation, text-generation, fill-mask"),
    ("{path: some/model, revision: abc}", "{}",
     "3: model.path: missing; a hub id or a folder (or a config, to train a model from scratch)"),
    ("{path: some/model, revision: abc}", "{config: {hidden_size: 8}}",
     "3: model.config.model_type: missing; the architecture, such as llama, or a path that has one"),
    ("{path: some/model, revision: abc}", "{config: {model_type: llama}}",
     "5: method: lora beside weights that are random; use full, or remove model.config"),
    ("path: some/model, revision: abc", "config: {model_type: llama}, revision: abc",
     "3: model.revision: of what? There is no path"),
    ("  validation: {path: dev.csv}\n", "",
     "9: trainer.load_best_model_at_end: needs input.validation, on which evaluations are made"),
    ("  train: {path: train.csv, columns: {text: text, label: category}}\n", "",
     "6: input.train: missing; `hfray explain input.train` says what goes there"),
    ("columns: {text: text", "columsn: {text: text", "7: input.train.columsn: unknown key, did you mean columns?"),
    ("global_batch_size: 32", "global_batch_size: 0", "9: global_batch_size: must be at least 1, not 0"),
    ("global_batch_size: 32", "global_batch_size: 8",
     "10: trainer.per_device_train_batch_size: 16 is above global_batch_size, 8"),
    ("num_train_epochs: 3", "seed: 3", "10: trainer.seed: is the job's own seed"),
    ("num_train_epochs: 3", "gradient_accumulation_steps: 2",
     "10: trainer.gradient_accumulation_steps: follows from global_batch_size and the number of workers; remove it"),
    ("num_train_epochs: 3", "warmup_ratio: 0.1", "10: trainer.warmup_ratio: is not an argument of this release; write "
     "warmup_steps; below 1 it is a share of the run"),
    ("num_train_epochs: 3", "bf16: true, fp16: true",
     "10: trainer.fp16: trainer.bf16 is true already; choose one of them"),
    ("num_train_epochs: 3", "lr_scheduler_type: greedy", "10: trainer.lr_scheduler_type: greedy follows a metric, and "
     "rates here follow samples, so that a stopped run goes on with the same ones; use another, such as linear or "
     "cosine"),
    ("num_train_epochs: 3", "lr_scheduler_type: reduce_lr_on_plateau", "10: trainer.lr_scheduler_type: "
     "reduce_lr_on_plateau follows a metric, and rates here follow samples, so that a stopped run goes on with the "
     "same ones; use another, such as linear or cosine"),
    ("deepspeed: auto", "deepspeed: 4", "11: deepspeed: must be at most 3 or a mapping of keys or text, not 4"),
    ("deepspeed: auto", "deepspeed: true", "11: deepspeed: must be auto, a ZeRO stage (0 to 3), a mapping of "
     "DeepSpeed's keys, or a .json file"),
    ("deepspeed: auto", "deepspeed: zero2", "11: deepspeed: must be auto, a ZeRO stage (0 to 3), a mapping of "
     "DeepSpeed's keys, or a .json file"),
    ("deepspeed: auto", "early_stopping: {patience: 0}", "11: early_stopping.patience: must be at least 1, not 0"),
    ("deepspeed: auto", "mode: packed",
     "11: mode: packed does not train text-classification, which takes plain and pair"),
    ("deepspeed: auto", "mode: tokenizer", "11: mode.name: unknown name 'tokenizer'; known: plain, pair, windows, "
     "words, seq2seq, chat, packed"),
    ("deepspeed: auto", "max_failures: -2", "11: max_failures: must be at least -1, not -2"),
    ("min: 2", "min: 9", "12: workers.min: 9 is above workers.max, 8"),
]  # fmt: skip


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load, "job_kinds", lambda: {"train": TrainJob})
    return Path("job.yaml")


def job(**changes: Any) -> TrainJob:
    return TrainJob.model_validate(JOB | changes)


def test_the_example_of_the_issue(write: Path) -> None:
    write.write_text(GOOD)
    found = load_job(write)
    assert isinstance(found, TrainJob)
    assert found.method.name == "lora"
    assert found.input.validation is not None
    assert (found.micro_batch_size, found.features_mode, found.subject) == (16, "plain", "text-classification")
    assert TrainJob.model_validate(found.model_dump()) == found


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES)
def test_one_mistake_is_one_line(write: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    write.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(SpecError) as caught:
        load_job(write)
    assert str(caught.value) == f"job.yaml:{expected}"


def test_short_forms() -> None:
    found = job(method="qlora", early_stopping=3, input={"train": "a.csv", "validation": "b.csv"}, mode="pair")
    assert (found.method.name, found.input.train.path) == ("qlora", ("a.csv",))
    assert found.early_stopping is not None
    assert found.early_stopping.patience == 3
    assert found.features_mode == "pair"
    assert job().method.name == "full"
    assert [job(deepspeed=each).deepspeed for each in (2, "own.json", {"zero_optimization": {}})] == [
        2, "own.json", {"zero_optimization": {}},
    ]  # fmt: skip
    assert job(model={"config": {"model_type": "llama"}}).model.path is None
    assert job().micro_batch_size == 8


def test_smoothed_labels_are_of_classes() -> None:
    smooth = {"trainer": {"label_smoothing_factor": 0.1}}
    job(**smooth)
    for task in ("question-answering", "summarization"):
        with pytest.raises(ValidationError, match=f"is not for {task}, but for text-classification"):
            job(task=task, **smooth)
        job(task=task, trainer={"label_smoothing_factor": 0.0})


def test_evaluations_need_rows() -> None:
    for changes in (
        {"early_stopping": 2},
        {"trainer": {"eval_strategy": "steps"}},
        {"trainer": {"eval_on_start": True}},
        {"trainer": {"metric_for_best_model": "accuracy"}},
    ):
        with pytest.raises(ValidationError, match=r"needs input\.validation"):
            job(**changes)
    job(trainer={"eval_strategy": "no"})
    job(trainer={"eval_strategy": False})


@pytest.mark.parametrize("never", ["no", False])
def test_what_compares_evaluations_is_refused_where_none_are_made(never: object) -> None:
    rows = {"train": "a.csv", "validation": "b.csv"}
    for field, changes, trainer in (
        ("early_stopping", {"early_stopping": 2}, {}),
        ("trainer.load_best_model_at_end", {}, {"load_best_model_at_end": True}),
        ("trainer.metric_for_best_model", {}, {"metric_for_best_model": "loss"}),
    ):
        with pytest.raises(ValidationError, match=r"compares evaluations, and trainer\.eval_strategy is no") as caught:
            job(input=rows, trainer=trainer | {"eval_strategy": never}, **changes)
        assert caught.value.errors()[0]["ctx"]["key"] == field
        job(input=rows, trainer=trainer | {"eval_strategy": "steps"}, **changes)
        job(input=rows, trainer=trainer, **changes)
    job(input=rows, trainer={"eval_strategy": never, "eval_on_start": True})


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "b"},
        {"output": {"path": "elsewhere"}},
        {"workers": {"min": 2, "max": 9, "gpus": 1}},
        {"deepspeed": 2},
        {"max_failures": 0},
        {"max_error_rate": 0.5},
        {"trainer": {"per_device_train_batch_size": 2, "logging_steps": 5, "report_to": "none"}},
        {"trainer": {"gradient_checkpointing": True}},
    ],
)
def test_what_may_change_between_runs(changes: dict[str, Any]) -> None:
    assert job(**changes) != job()
    assert fingerprint(training_identity(job(**changes))) == fingerprint(training_identity(job()))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"global_batch_size": 64},
        {"trainer": {"learning_rate": 1e-3}},
        {"trainer": {"bf16": True}},
        {"method": "lora"},
        {"model": {"path": "n"}},
        {"mode": "pair"},
        {"mask_probability": 0.3},
        {"input": {"train": "y.csv"}},
    ],
)
def test_what_makes_another_model(changes: dict[str, Any]) -> None:
    assert fingerprint(training_identity(job(**changes))) != fingerprint(training_identity(job()))


def test_a_tokenised_folder_has_a_path_and_a_split() -> None:
    assert beside_path(InputSpec.model_validate({"path": "out/tokens", "split": "test"})) == ()
    assert beside_path(InputSpec.model_validate({"path": "a", "where": "x > 1", "limit": 3})) == ("limit", "where")


def test_every_task_that_can_be_trained_says_with_what() -> None:
    assert set(MODES_OF_TASK) == {name for name, task in TASKS.items() if task.training_mode is not None}
    for name, modes in MODES_OF_TASK.items():
        assert TASKS[name].training_mode in modes
        assert set(modes) <= set(MODES)


def test_the_table_of_the_documentation_is_whole() -> None:
    rows = table(ROOT / "docs" / "training.md", "task")
    told = {task: tuple(modes.split(", ")) for tasks, _, modes in rows for task in tasks.split(", ")}
    assert {task: set(modes) for task, modes in told.items()} == {
        task: set(modes) for task, modes in MODES_OF_TASK.items()
    }


def test_every_field_is_explained() -> None:
    assert not [path for path, _, field in fields(TrainJob) if not field.description and not path.endswith(".name")]
    assert TrainJob.model_json_schema()["properties"]["method"]
