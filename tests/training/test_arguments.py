"""A job's words to Transformers' arguments: what it refuses is the author's to mend, and TensorBoard is always told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hfray.errors import SpecError
from hfray.training.arguments import trackers, training_arguments
from hfray.training.schedule import RunLength


def setup(**trainer: Any) -> Any:
    return SimpleNamespace(
        trainer=trainer,
        deepspeed={1: {"zero_optimization": {"stage": 0}}},
        schedule=SimpleNamespace(length=RunLength.of(100, 8, 1.0)),
        micro_batch_size=4,
        seed=3,
        on_gpu=False,
        model=SimpleNamespace(precision="fp32"),
    )


@pytest.mark.parametrize("trainer", [{"warmup_steps": -1}, {"tf32": True}, {"report_to": "nothing"}])
def test_what_transformers_refuses_is_the_authors_to_mend(tmp_path: Path, trainer: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"^trainer"):
        training_arguments(setup(**trainer), 1, tmp_path)


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda: ["tensorboard"])
    with pytest.raises(SpecError, match=r"trainer\.report_to: wandb is not installed"):
        trackers("wandb")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, ["tensorboard"]),
        ("none", ["tensorboard"]),
        ("wandb", ["tensorboard", "wandb"]),
        (["mlflow", "tensorboard"], ["tensorboard", "mlflow"]),
        ("all", ["all"]),
    ],
)
def test_tensorboard_is_always_told(
    wanted: str | list[str] | None, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = ["tensorboard", "wandb", "mlflow"]
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda: installed)
    assert trackers(wanted) == found
