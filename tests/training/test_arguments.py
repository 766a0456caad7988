"""Which trackers a run tells: TensorBoard always, the others by name."""

from __future__ import annotations

import pytest

from hfray.training.arguments import trackers


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
def test_tensorboard_is_always_told(wanted: str | list[str] | None, found: list[str]) -> None:
    assert trackers(wanted) == found
