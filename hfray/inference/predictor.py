"""Joins a task and an engine: rows in, results out, in order. The batch worker and the Serve replica hold the same
class, so that a row gets the same answer offline and online. Knows neither Ray nor files."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from hfray.engines.base import Engine, Outputs
from hfray.errors import EngineError, ItemError, RowError
from hfray.tasks.base import Task
from hfray.types import Encoded, Item, Output, Result, Row

ADAPTER_COLUMN = "adapter"


@dataclass(frozen=True, slots=True)
class Pending:
    """Rows on their way through the engine."""

    encoded: list[Encoded | RowError]
    future: Future[Outputs]

    def item_lengths(self) -> list[int]:
        """Tokens of every item, for the report's histogram."""
        return [item.num_tokens for each in self.encoded if isinstance(each, Encoded) for item in each.items]

    def row_tokens(self) -> list[tuple[int, int]]:
        """(tokens of the model's inputs, tokens generated) of each row; once the future is done."""
        outputs = self.future.result()
        counts: list[tuple[int, int]] = []
        start = 0
        for each in self.encoded:
            items = () if isinstance(each, RowError) else each.items
            own = outputs[start : start + len(items)]
            start += len(items)
            new = sum(len(output.get("tokens", ())) for output in own if not isinstance(output, ItemError))
            counts.append((sum(item.num_tokens for item in items), new))
        return counts

    @property
    def num_truncated(self) -> int:
        """Rows whose model input was cut."""
        return sum(each.truncated for each in self.encoded if isinstance(each, Encoded))


class Predictor:
    """`submit` encodes and queues, `finish` waits and decodes; `predict` is both."""

    def __init__(self, task: Task, engine: Engine, *, seed: int = 0, adapters: Collection[str] = ()) -> None:
        """adapters: names that rows may give in the column `adapter`; without any the column means nothing."""
        self._adapters = frozenset(adapters)
        self.task = task
        self.engine = engine
        self._seed = seed

    def predict(self, rows: Sequence[Row], positions: Sequence[int] | None = None) -> list[Result | RowError]:
        """One result or RowError per row, in order. `positions` are the rows' numbers in the job (for seeds)."""
        return self.finish(self.submit(rows, positions))

    @property
    def columns(self) -> set[str]:
        """All columns that a row's answer may depend on."""
        task = self.task
        needed = {*task.columns, *task.optional_columns, *task.required_columns(task.options)}
        return needed | ({ADAPTER_COLUMN} if self._adapters else set())

    def submit(
        self,
        rows: Sequence[Row],
        positions: Sequence[int] | None = None,
        options: Any = None,
        salts: Sequence[str] | None = None,
    ) -> Pending:
        """Queues what `encode` makes of the rows."""
        encoded = self.encode(rows, positions, options, salts)
        items = [item for each in encoded if isinstance(each, Encoded) for item in each.items]
        return Pending(encoded, self.engine.submit(items))

    def encode(
        self,
        rows: Sequence[Row],
        positions: Sequence[int] | None = None,
        options: Any = None,
        salts: Sequence[str] | None = None,
    ) -> list[Encoded | RowError]:
        """The engine's items for each row, with their seeds and adapters. Raises SpecError for options that the model
        cannot do.

        options: a request's, in place of the task's own. salts: of each row, see `Item.cache_salt`.
        """
        encoded = self.task.encode(rows, options)
        if len(encoded) != len(rows):
            raise EngineError(f"task {self.task.name} encoded {len(rows)} rows to {len(encoded)}; a mistake in hfray")
        if self._adapters:
            encoded = [self._adapted(each, row) for each, row in zip(encoded, rows, strict=True)]
        if self.task.mode == "generate":
            where = positions if positions is not None else range(len(rows))
            encoded = [self._seeded(each, position) for each, position in zip(encoded, where, strict=True)]
            if salts is not None:
                encoded = [_salted(each, salt) for each, salt in zip(encoded, salts, strict=True)]
        return encoded

    def finish(self, pending: Pending) -> list[Result | RowError]:
        """Raises EngineError when the model or its device is lost."""
        outputs = pending.future.result()
        results: list[Result | RowError] = []
        start = 0
        for each in pending.encoded:
            if isinstance(each, RowError):
                results.append(each)
                continue
            own = outputs[start : start + len(each.items)]
            start += len(each.items)
            results.append(self._decode(own, each.carry))
        return results

    def _decode(self, outputs: Sequence[Output | ItemError], carry: Any) -> Result | RowError:
        for output in outputs:
            if isinstance(output, ItemError):
                return output
        try:
            return self.task.decode([output for output in outputs if not isinstance(output, ItemError)], carry)
        except RowError as error:
            return error

    def _adapted(self, encoded: Encoded | RowError, row: Row) -> Encoded | RowError:
        """With the adapter that the row names."""
        name = row.get(ADAPTER_COLUMN)
        if isinstance(encoded, RowError) or name is None:
            return encoded
        if not isinstance(name, str) or name not in self._adapters:
            known = ", ".join(sorted(self._adapters)[:20])
            return RowError(f"adapter is {name!r:.80}, and the job has {known}", type="UnknownAdapter")
        return replace(encoded, items=tuple(replace(item, adapter=name) for item in encoded.items))

    def _seeded(self, encoded: Encoded | RowError, position: int) -> Encoded | RowError:
        """Every sampled item gets a seed from the job's seed, its row's position and its number in the row; those of a
        row that gives its own seed what an endpoint would give them, wherever the row is."""
        if isinstance(encoded, RowError):
            return encoded
        seed, places = 0, encoded.own_places
        if places is None:
            seed, places = self._seed, tuple((position, number) for number in range(len(encoded.items)))
        items = tuple(_with_seed(item, seed, *place) for item, place in zip(encoded.items, places, strict=True))
        return replace(encoded, items=items)


def _with_seed(item: Item, seed: int, position: int, sample: int) -> Item:
    params = item.generation
    if params is None or params.deterministic:
        return item
    return replace(item, generation=replace(params, seed=row_seed(seed ^ params.seed, position, sample)))


def _salted(encoded: Encoded | RowError, salt: str) -> Encoded | RowError:
    if isinstance(encoded, RowError) or not salt:
        return encoded
    return replace(encoded, items=tuple(replace(item, cache_salt=salt) for item in encoded.items))


def row_seed(seed: int, position: int, sample: int) -> int:
    """A seed below 2**63 that depends on nothing but its arguments."""
    digest = hashlib.blake2b(f"{seed}:{position}:{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
