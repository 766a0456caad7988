"""Models come, change and go as Serve's controller tells it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from hfray.serving.directory import Directory
from hfray.serving.messages import Card
from hfray.spec.endpoint import LimitsSpec

CARD = Card("", "text-classification", {"top_k": 1}, adapters=("a",), limits=LimitsSpec(max_inputs=7))


def app(card: Any = CARD, *, status: str = "RUNNING", running: int = 1) -> dict[str, Any]:
    replicas = [{"state": "RUNNING"}] * running + [{"state": "STARTING"}]
    deployment = {"deployment_config": {"user_config": card.to_json()}, "replicas": replicas}
    return {"status": status, "deployments": {"model": deployment}}


def building() -> dict[str, Any]:
    return {"status": "DEPLOYING", "deployments": {}}


class Serve:
    """Directory over what a test says; `see` asks once."""

    def __init__(self) -> None:
        self.apps: dict[str, Any] = {}
        self.told: list[tuple[str, int]] = []
        self.directory = Directory(
            lambda name: None,  # type: ignore[arg-type, return-value]
            lambda: {"applications": self.apps},
            lambda name, num_requests: self.told.append((name, num_requests)),
        )

    def see(self, **apps: Any) -> Directory:
        self.apps = apps
        asyncio.run(self.directory.refresh())
        return self.directory


def test_a_model_is_known_by_its_card() -> None:
    serve = Serve()
    directory = serve.see(weather=app(running=2), gateway={"status": "RUNNING", "deployments": {"gateway": {}}})
    assert list(directory.lanes) == ["weather"]
    lane = directory.lanes["weather"]
    assert (lane.card, lane.num_replicas) == (replace(CARD, name="weather"), 2)
    assert serve.told == [("weather", 0)]
    assert directory.unready() == []


@pytest.mark.parametrize(
    "config",
    [
        None,
        ["task", "options", "limits"],
        {"x": 1},
        {"task": "a", "limits": {}},
        {"task": "a", "options": {}, "limits": {"speed": 1}},
        {"task": "a", "options": {}, "limits": {}, "adapters": 3},
        {"task": "a", "options": {}, "limits": {}, "colour": "red"},
    ],
)
def test_an_application_of_somebody_else_is_no_model(config: Any) -> None:
    other = {"status": "RUNNING", "deployments": {"model": {"deployment_config": {"user_config": config}}}}
    assert Serve().see(other=other).lanes == {}


def test_a_lane_outlives_an_update_and_changes_its_card_at_its_end() -> None:
    serve = Serve()
    lane = serve.see(weather=app()).lanes["weather"]
    assert serve.see(weather=building()).lanes["weather"] is lane
    newer = replace(CARD, options={"top_k": 2})
    serve.see(weather=app(newer, status="DEPLOYING"))
    assert lane.card.options == {"top_k": 1}
    serve.see(weather=app(newer))
    assert lane.card.options == {"top_k": 2}
    assert serve.directory.lanes["weather"] is lane


@pytest.mark.parametrize("gone", [{}, {"weather": {**building(), "status": "DELETING"}}])
def test_a_model_that_is_taken_away_has_no_lane(gone: dict[str, Any]) -> None:
    serve = Serve()
    serve.see(weather=app())
    assert serve.see(**gone).lanes == {}


def test_a_lane_ends_when_its_replicas_are_gone_and_not_while_they_finish() -> None:
    serve = Serve()
    ended: list[str] = []
    lane = serve.see(weather=app()).lanes["weather"]
    lane.end = lambda: ended.append("weather")  # type: ignore[method-assign]
    leaving = app(status="DELETING")
    for _ in range(2):
        serve.see(weather=leaving)
        assert ended == []
    again = serve.see(weather=app()).lanes["weather"]
    assert ended == ["weather"]
    serve.see(weather=app())
    assert serve.directory.lanes["weather"] is again is not lane
    assert ended == ["weather"]


def test_what_is_not_ready() -> None:
    serve = Serve()
    assert serve.see(weather=building()).unready() == ["weather"], "it may become a model"
    assert serve.see(weather=app(running=0)).unready() == ["weather"]
    assert serve.see(weather=app(replace(CARD, min_replicas=0), running=0)).unready() == [], "it can be started"
    for status in ("DEPLOY_FAILED", "UNHEALTHY"):
        failed = app(replace(CARD, min_replicas=0), running=0, status=status)
        assert serve.see(weather=failed).unready() == ["weather"], "it could not be started"
        failed_update = app(replace(CARD, min_replicas=0), running=1, status=status)
        assert serve.see(weather=failed_update).unready() == [], "the version before answers"


def test_what_is_known_stays_while_the_controller_is_away() -> None:
    serve = Serve()
    serve.see(weather=app())
    serve.directory._details = dict  # no applications in it: as bad an answer as none
    with pytest.raises(KeyError):
        asyncio.run(serve.directory.refresh())
    assert list(serve.directory.lanes) == ["weather"]
