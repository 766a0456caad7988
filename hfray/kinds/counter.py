"""Adds up what the actors report between receipts. Imports nothing but Python's own, so that its process starts at
once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TICK_EVERY_S = 1.0
"""From each worker: one actor takes a few thousand calls a second, and a thousand workers make more batches."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the actors have reported between receipts."""

    rows: int = 0
    failed: int = 0
    tokens: int = 0
    workers: int = 0
    model: dict[str, Any] | None = None


class Ticks:
    """A worker's own sums, sent now and then; the first at once. Thread-safe."""

    def __init__(self, send: Callable[[int, int, int], object], clock: Callable[[], float] = time.monotonic) -> None:
        """send: takes rows, failed, tokens."""
        self._send = send
        self._clock = clock
        self._lock = threading.Lock()
        self._sums = (0, 0, 0)
        self._sent_at = float("-inf")

    def add(self, rows: int, failed: int, tokens: int) -> None:
        with self._lock:
            sums = self._sums
            self._sums = (sums[0] + rows, sums[1] + failed, sums[2] + tokens)
            if self._clock() - self._sent_at >= TICK_EVERY_S:
                self._flush()

    def flush(self) -> None:
        """Sends what is left."""
        with self._lock:
            if any(self._sums):
                self._flush()

    def _flush(self) -> None:
        self._send(*self._sums)
        self._sums, self._sent_at = (0, 0, 0), self._clock()


class Counter:
    """A tiny actor that adds up ticks. Only for the eye: it may die, the receipts are what counts."""

    def __init__(self) -> None:
        self._rows = self._failed = self._tokens = 0
        self._workers: set[str] = set()
        self._model: dict[str, Any] | None = None

    def tick(self, worker: str, rows: int, failed: int, tokens: int) -> None:
        self._workers.add(worker)
        self._rows += rows
        self._failed += failed
        self._tokens += tokens

    def loaded(self, worker: str, model: dict[str, Any]) -> None:
        self._workers.add(worker)
        self._model = model

    def snapshot(self) -> Snapshot:
        return Snapshot(self._rows, self._failed, self._tokens, len(self._workers), self._model)
