"""What the routes of one gateway share: which model is meant, whether the key may ask it, what a request costs its key.
Knows lanes, keys and quotas; not protocols, not bodies."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hfray.serving.directory import Directory
from hfray.serving.errors import RequestError
from hfray.serving.lane import Lane
from hfray.serving.leases import Leases
from hfray.serving.meters import Meters
from hfray.spec.endpoint import GatewaySpec
from hfray.tasks import TASKS
from hfray.types import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

CHARS_PER_TOKEN = 4
MAX_SEED = 2**63


class Front:
    """One gateway's state."""

    def __init__(
        self,
        directory: Directory,
        spec: GatewaySpec,
        *,
        leases: Leases | None = None,
        meters: Meters | None = None,
    ) -> None:
        self.directory = directory
        self.spec = spec
        self.leases = leases
        self.meters = meters or Meters()
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether every model has a replica that answers, and this gateway goes on."""
        return self.directory.known and not self.draining and not self.directory.unready()

    def lanes(self, request: Request) -> dict[str, Lane]:
        """Those that the request's key may ask."""
        key = request.scope["state"]["key"]
        return {name: lane for name, lane in self.directory.lanes.items() if key is None or key.allows(name)}

    def lane(self, request: Request, name: str) -> tuple[Lane, str | None]:
        """The lane of `model` or `model:adapter`, and the adapter. Raises RequestError 404, which does not tell a model
        that is not there from one that the key may not ask."""
        lane, adapter = self.directory.lanes.get(name), None
        if lane is None:
            model, colon, wanted = name.rpartition(":")
            found = self.directory.lanes.get(model) if colon else None
            if found is not None and wanted in found.card.adapters:
                lane, adapter = found, wanted
        key = request.scope["state"]["key"]
        if lane is None or not (key is None or key.allows(lane.card.name)):
            raise RequestError(
                "there is no such model here; GET /v1/models lists them",
                status=404,
                type="ModelNotFound",
                param="model",
            )
        request.scope["state"]["model"] = lane.card.name
        return lane, adapter

    async def admit(self, request: Request, lane: Lane, rows: Iterable[Row], num_new_tokens: int) -> Toll:
        """Takes what the request may use from its key's quotas. Raises RequestError 429."""
        key = request.scope["state"]["key"]
        rows = list(rows)
        request.scope["state"]["num_rows"] = len(rows)
        if key is None or self.leases is None:
            return Toll(self, request, lane, 0)
        estimate = sum(map(num_chars, rows)) // CHARS_PER_TOKEN + num_new_tokens
        wait_s = await self.leases.allow(key, 1, estimate)
        if wait_s is None:
            return Toll(self, request, lane, estimate)
        if math.isinf(wait_s):
            # Not 429, after which clients come again.
            raise RequestError("the request is larger than the key's quota ever allows", status=422, type="Quota")
        raise RequestError("the key has used up its quota for now", status=429, type="Quota", retry_after_s=wait_s)


class Toll:
    """What a request cost, in the end."""

    def __init__(self, front: Front, request: Request, lane: Lane, estimate: int) -> None:
        self._front = front
        self._request = request
        self._lane = lane
        self._estimate = estimate
        self._paid = False

    @property
    def key_id(self) -> str | None:
        """Who pays; None without keys."""
        key = self._request.scope["state"]["key"]
        return None if key is None else str(key.id)

    def pay(self, num_tokens: int, num_new_tokens: int) -> None:
        """Once; nothing was used where nobody says it."""
        if self._paid:
            return
        self._paid = True
        state = self._request.scope["state"]
        state["num_tokens"], state["num_new_tokens"] = num_tokens, num_new_tokens
        key = state["key"]
        self._front.meters.tokens(self._lane.card.name, self.key_id, num_tokens, num_new_tokens)
        if key is not None and self._front.leases is not None:
            self._front.leases.settle(key, num_tokens + num_new_tokens - self._estimate)

    @contextmanager
    def unless_begun(self) -> Iterator[None]:
        """A block whose failure is the request's end; after it somebody else says what was used."""
        try:
            yield
        except BaseException:
            self.pay(0, 0)
            raise

    @contextmanager
    def settled(self) -> Iterator[Toll]:
        """A block after which the request has paid, for nothing if it failed."""
        try:
            yield self
        finally:
            self.pay(0, 0)


def is_generating(lane: Lane) -> bool:
    return TASKS[lane.card.task].mode == "generate"


def with_seed(changes: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A request's options with a seed where it samples and gives none: drawn here, so that a retry gives the same text.

    own: the endpoint's options.
    """
    samples = {**own, **changes}.get("temperature")
    return {"seed": secrets.randbelow(MAX_SEED), **changes} if samples else dict(changes)


def num_chars(value: Any) -> int:
    """Characters of all texts in a row."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(num_chars, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(num_chars, value))
    return 0
