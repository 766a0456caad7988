"""A writer over HTTP whose steps a test slows down, holds up or breaks, asked in each protocol; its streams read event
by event."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from hfray.serving.front import Front
from hfray.serving.lane import Lane
from hfray.serving.replica import Replica
from tests.models.support import save_decoder
from tests.serving.front import until
from tests.serving.office import front_of, replica_of, served

NUM_TOKENS = 200
"""That every request here has written, if nothing comes between."""
CHAT = {"model": "writer", "messages": [{"role": "user", "content": "hi"}]}
LENGTH = {"max_tokens": NUM_TOKENS, "min_tokens": NUM_TOKENS}
ASKS: dict[str, dict[str, Any]] = {
    "/models/writer": {
        "inputs": "once", "parameters": {"max_new_tokens": NUM_TOKENS, "min_new_tokens": NUM_TOKENS},
    },
    "/v1/chat/completions": {**CHAT, **LENGTH},
    "/v1/completions": {"model": "writer", "prompt": "once", **LENGTH},
    "/models/writer/v1/chat/completions": {**CHAT, **LENGTH},
}  # fmt: skip
"""A body for each route."""


class Pace:
    """What comes before each step of a replica's model."""

    def __init__(self, replica: Replica) -> None:
        runner: Any = replica.engine._runner  # type: ignore[attr-defined]
        self._step = runner.step
        self.go = threading.Event()
        self.reset()
        runner.step = self._paced

    def reset(self) -> None:
        self.step_s = 0.0
        self.steps_left: int | None = None
        """After so many steps `error` is raised; None: never."""
        self.error: Exception = RuntimeError()
        self.go.set()

    def _paced(self, *arguments: Any) -> Any:
        self.go.wait()
        time.sleep(self.step_s)
        if self.steps_left is not None:
            if self.steps_left == 0:
                raise self.error
            self.steps_left -= 1
        return self._step(*arguments)


@dataclass
class Writer:
    url: str
    replica: Replica
    front: Front
    pace: Pace
    _generated: int = field(default=0, init=False)

    @property
    def running(self) -> int:
        """Texts that the engine has, by its own count."""
        scheduler: Any = self.replica.engine.scheduler  # type: ignore[attr-defined]
        return len(scheduler.running) + len(scheduler.waiting)

    @property
    def generated(self) -> int:
        """Tokens since `rest`."""
        return self.replica.engine.stats.generated_tokens - self._generated

    def limit(self, timeout_s: float) -> None:
        limit(self.front.directory.lanes["writer"], timeout_s)

    def rest(self) -> None:
        """Nobody asks, and nothing is in the way of who comes next."""
        self.pace.reset()
        self.limit(60)
        until(lambda: not self.running and not self.replica.num_ongoing, "the engine has texts that nobody waits for")
        self._generated = self.replica.engine.stats.generated_tokens

    def events(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The values of a stream that has begun; `[DONE]` as this text."""
        with httpx.stream("POST", self.url + path, json={**body, "stream": True}, timeout=30) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            return values(response.read().decode())


def limit(lane: Lane, timeout_s: float) -> None:
    """How long this model's answers may take from now on."""
    lane.card = replace(lane.card, limits=lane.card.limits.model_copy(update={"timeout_s": timeout_s}))


def values(text: str) -> list[Any]:
    """Of server-sent events, each with one line."""
    lines = text.split("\n\n")
    assert lines.pop() == "", "the last event is whole"
    assert all(line.startswith("data: ") for line in lines)
    return [line if line == "[DONE]" else json.loads(line) for line in (line.removeprefix("data: ") for line in lines)]


@contextmanager
def open_writer(folder: Path, **limits: Any) -> Iterator[Writer]:
    """limits: the endpoint's."""
    replica, card = replica_of(save_decoder(folder), "text-generation", limits=limits)
    front = front_of({"writer": (replica, card)})
    writer = Writer("", replica, front, Pace(replica))
    try:
        with served(front) as writer.url:
            yield writer
    finally:
        writer.pace.reset()
        replica.close()


def assert_error(path: str, value: Any, types: tuple[str, str]) -> str:
    """The form of part C of the promises; returns the message. types: OpenAI's and Hugging Face's."""
    if "/v1/" not in path:
        assert set(value) == {"error", "error_type"}
        assert value["error_type"] == types[1]
        return str(value["error"])
    assert set(value) == {"error"}
    assert set(value["error"]) == {"message", "type", "param", "code"}
    assert value["error"]["type"] == types[0]
    return str(value["error"]["message"])
