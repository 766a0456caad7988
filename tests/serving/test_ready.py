"""Whether a gateway is ready, as whoever sends it requests is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from hfray.serving.front import Front
from hfray.serving.messages import Card
from tests.serving.office import front_of, served

NOBODY: Any = None


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda front: setattr(front.directory.lanes["reader"], "num_replicas", 0), "not every model has a replica"),
        (lambda front: setattr(front.directory, "known", False), "not every model has a replica"),
        (lambda front: setattr(front, "draining", True), "this gateway is being replaced"),
    ],
    ids=["a model without replicas", "no word from Serve yet", "draining"],
)
def test_ready_and_not_any_more(spoil: Callable[[Front], None], why: str) -> None:
    front = front_of({"reader": (NOBODY, Card("reader", "text-classification", {}))})
    front.directory.lanes["reader"].num_replicas = 1
    with served(front) as url:
        assert httpx.get(f"{url}/readyz").status_code == 200
        spoil(front)
        found = httpx.get(f"{url}/readyz")
        assert found.status_code == 503
        assert found.headers["retry-after"] == "1"
        assert why in found.json()["error"]
        assert httpx.get(f"{url}/healthz").status_code == 200, "it lives all the same"
