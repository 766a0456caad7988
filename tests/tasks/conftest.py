"""What holds for every task's metrics, whichever test asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hfray.tasks import TASKS
from hfray.tasks.base import Task


@pytest.fixture(autouse=True)
def metrics_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task gives only metrics that it names beforehand."""

    def checked(metrics: Callable[..., dict[str, float]]) -> Callable[..., dict[str, float]]:
        def named(self: Task, *args: Any, **kwargs: Any) -> dict[str, float]:
            found = metrics(self, *args, **kwargs)
            assert set(found) <= set(self.metric_names)
            return found

        return named

    for task in TASKS.values():
        if "metrics" in vars(task):
            monkeypatch.setattr(task, "metrics", checked(task.metrics))
