"""Which files are the model."""

from __future__ import annotations

from hfray.models.result_files import model_files

MODEL = (
    "README.md",
    "adapter_config.json",
    "config.json",
    "hfray.json",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "1_Pooling/config.json",
    "tokenizer.json",
)
JOB = (
    "_SUCCESS",
    "_work/identity.json",
    "report.html",
    "report.json",
    "spec.yaml",
    "runs/events.out.tfevents.1",
    "checkpoints/1/model.safetensors",
    "checkpoint-500/optimizer.pt",
    ".hfray/lock",
    "1_Pooling/.cache",
)


def test_the_model_and_the_job() -> None:
    assert model_files([*JOB, *MODEL]) == MODEL
