"""Adds up what the actors report between receipts. Imports nothing, so that its own process starts at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the actors have reported between receipts."""

    rows: int = 0
    failed: int = 0
    tokens: int = 0
    workers: int = 0
    model: dict[str, Any] | None = None


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
