"""Which models there are: the applications of the Ray Serve that the gateway is part of. Knows Serve's controller; not
requests, not HTTP.

A model is known by its card, which its application carries as `user_config`. Models come, change and go while the
gateway runs; during an update the old card counts until the new version answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from hfray.errors import EngineError
from hfray.serving.calls import DEPLOYMENT
from hfray.serving.errors import RequestError
from hfray.serving.lane import Calls, Lane
from hfray.serving.messages import Card

REFRESH_S = 1.0
_GONE = ("DELETING", "NOT_STARTED")
_FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
log = logging.getLogger("hfray.serving")


class Directory:
    """The lanes of all models, kept true by a task of its own."""

    def __init__(
        self,
        calls_to: Callable[[str], Calls],
        details: Callable[[], Mapping[str, Any]] | None = None,
        waiting: Callable[[str, int], None] = lambda name, num_requests: None,
    ) -> None:
        """calls_to: how an application is reached. details: what Serve's controller knows; blocks. waiting: is told
        now and then how many requests a model has here."""
        self._waiting = waiting
        self.lanes: dict[str, Lane] = {}
        self.known = False
        """Whether Serve has been asked once."""
        self._unknown: set[str] = set()
        self._failed: set[str] = set()
        self._leaving: list[tuple[str, Lane]] = []
        self._calls_to = calls_to
        self._details = details or serve_details
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.refresh()
        self._task = asyncio.get_running_loop().create_task(self._keep_true())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def end(self, error: RequestError) -> None:
        """Refuses what is on its way to any model."""
        for lane in (*self.lanes.values(), *(lane for _, lane in self._leaving)):
            lane.end(error)

    def unready(self) -> list[str]:
        """Models without a replica that answers, those apart that can be started by the first request."""
        waits = [
            name
            for name, lane in self.lanes.items()
            if lane.num_replicas == 0 and (lane.card.min_replicas > 0 or name in self._failed)
        ]
        return waits + sorted(self._unknown)

    async def refresh(self) -> None:
        """Asks the controller once. Raises what Ray raises when it is away; what is known stays."""
        details = await asyncio.get_running_loop().run_in_executor(None, self._details)
        self.known = True
        seen: set[str] = set()
        unknown: set[str] = set()
        self._failed = {name for name, app in details["applications"].items() if app["status"] in _FAILED}
        for name, app in details["applications"].items():
            if app["status"] in _GONE:
                continue
            if not app["deployments"]:
                # It is being built: the first time it may be a model, a later time the version before goes on.
                (seen if name in self.lanes else unknown).add(name)
                continue
            deployment = app["deployments"].get(DEPLOYMENT, {})
            card = card_in(name, deployment)
            if card is None:
                continue
            seen.add(name)
            running = sum(each["state"] == "RUNNING" for each in deployment["replicas"])
            lane = self.lanes.get(name)
            if lane is None:
                lane = self.lanes[name] = Lane(card, self._calls_to(name))
            elif lane.card != card and app["status"] == "RUNNING":
                lane.card = card
            lane.num_replicas = running
            self._waiting(name, lane.load)
        self._unknown = unknown
        for name in self.lanes.keys() - seen:
            lane = self.lanes.pop(name)
            lane.close()
            self._leaving.append((name, lane))
        self._end_what_left(details["applications"])

    def _end_what_left(self, apps: Mapping[str, Any]) -> None:
        """Ends the lanes whose replicas are gone; one that is being deleted finishes what it has."""
        leaving, self._leaving = self._leaving, []
        for name, lane in leaving:
            if apps.get(name, {}).get("status") == "DELETING":
                self._leaving.append((name, lane))
            else:
                lane.end()

    async def _keep_true(self) -> None:
        failed = False
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
                failed = False
            except Exception as error:  # the controller may be away for a while; models answer without it
                if not failed:
                    log.warning(
                        "Ray Serve's controller does not answer (%s); the models known go on", type(error).__name__
                    )
                failed = True


def card_in(name: str, deployment: Mapping[str, Any]) -> Card | None:
    """The card of a deployment, as Serve tells of it; None for an application that is none of ours."""
    config = deployment.get("deployment_config") or {}
    try:
        return Card.from_json({**config["user_config"], "name": name})
    except (KeyError, TypeError, ValueError):
        return None


def serve_details() -> Mapping[str, Any]:
    """What Serve's controller knows of its applications. Raises EngineError where there is no Serve."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    if client is None:
        raise EngineError("Ray Serve has ended")
    details: Mapping[str, Any] = client.get_serve_details()
    return details
