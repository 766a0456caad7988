"""What a scoring actor does with a shard: read, score, commit, give a receipt. Knows files and predictors; Ray Data
calls it but it knows nothing of Ray, so that it can be run and profiled without a cluster.

Two threads of Ray Data call the worker at once: one reads, encodes and writes while the other's items compute, so
that the engine, whose one thread owns the model, never waits for a file.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from hfray.data.base import Shard
from hfray.data.ledger import Ledger
from hfray.data.parts import assemble, decode_part, encode_part, part_facts
from hfray.data.plan import Plan
from hfray.data.selection import RowReader, SelectedRows
from hfray.errors import DataError, RowError
from hfray.inference.predictor import Pending, Predictor
from hfray.inference.receipt import Receipt, ShardFailure, Tick, count_labels, count_lengths, count_scores
from hfray.types import Result, Row

CHUNK_BYTES = 64 * 2**20
IMAGE_BYTES = 2 * 2**20  # a decoded image is far larger than its file


class ShardWorker:
    """Scores shards of one job. Loads the model at the first shard that has to be computed."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        make_predictor: Callable[[], Predictor],
        *,
        reader: RowReader,
        tick: Callable[[Tick], None] = lambda tick: None,
    ) -> None:
        self._plan = plan
        self._ledger = ledger
        self._make_predictor = make_predictor
        self._reader = reader
        self._tick = tick
        self._predictor: Predictor | None = None
        self._counted = _Counts()
        self._lock = threading.Lock()
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def score(self, shard_number: int) -> Receipt | ShardFailure:
        """Commits one part and says what is in it; adopts the part if it is there already.

        Raises EngineError and DataError of the output; a broken input file is a ShardFailure.
        """
        if self._ledger.has_part(shard_number):
            return self.adopt(shard_number)
        predictor = self.predictor
        started_at = time.time()  # loading the model is no part of a shard's time
        shard = self._plan.shard(shard_number)
        try:
            source = self._read(shard)
        except DataError as error:
            return ShardFailure(shard_number, shard.file.url, str(error))
        results, lengths, truncated = self._predict(predictor, source, range(len(source.rows)))
        table = assemble(source.table, results, predictor.task.result_type())
        data = encode_part(table, self._ledger.format)
        if not self._ledger.commit_part(shard_number, data):
            return self.adopt(shard_number)  # another attempt was first, and what it wrote is what counts
        return self._receipt(shard_number, source, table, data, results, lengths, truncated, started_at)

    def adopt(self, shard_number: int) -> Receipt:
        """The receipt of a part that is already there, made from its bytes."""
        data = self._ledger.read_part(shard_number)
        name = self._ledger.layout.name(shard_number)
        facts = part_facts(decode_part(data, self._ledger.format, f"{self._ledger.url}/data/{name}"), data)
        now = time.time()
        return Receipt(
            shard=shard_number, rows=facts.rows, failed=facts.failed, size_bytes=facts.size_bytes, sha256=facts.sha256,
            error_types=facts.error_types, started_at=now, ended_at=now, worker=self._name, adopted=True,
        )  # fmt: skip

    def retry(self, shard_number: int) -> Receipt:
        """Scores the failed rows of a part again and stages the part that would replace it."""
        started_at = time.time()
        old = decode_part(self._ledger.read_part(shard_number), self._ledger.format, f"part {shard_number}")
        source = self._read(self._plan.shard(shard_number))
        if old.num_rows != len(source.rows):
            raise DataError(
                f"part {shard_number} has {old.num_rows} rows, its input {len(source.rows)}: the input was changed"
            )
        errors = old.column("error").to_pylist()
        failed = [row for row, error in enumerate(errors) if error is not None]
        predictor = self.predictor
        fresh, lengths, truncated = self._predict(predictor, source, failed)
        results: list[Result | RowError] = old.column("result").to_pylist()
        for row, result in zip(failed, fresh, strict=True):
            results[row] = result
        table = assemble(source.table, results, predictor.task.result_type())
        data = encode_part(table, self._ledger.format)
        self._ledger.stage_part(shard_number, data)
        return self._receipt(shard_number, source, table, data, results, lengths, truncated, started_at)

    @property
    def predictor(self) -> Predictor:
        with self._lock:
            if self._predictor is None:
                self._predictor = self._make_predictor()
            return self._predictor

    # -- steps

    def _read(self, shard: Shard) -> SelectedRows:
        return self._reader.read(shard, self.predictor.columns)

    def _predict(
        self, predictor: Predictor, source: SelectedRows, wanted: Sequence[int]
    ) -> tuple[list[Result | RowError], list[int], int]:
        """Results of the wanted rows in order, the token counts of their items, and how many rows were truncated.

        One chunk is encoded while the one before computes, so that a shard of images never lies decoded in memory.
        """
        results: list[Result | RowError] = [source.errors.get(row, None) for row in wanted]
        lengths: list[int] = []
        truncated = 0
        todo = [place for place, row in enumerate(wanted) if row not in source.errors]
        waiting: tuple[list[int], Pending] | None = None
        for places in _chunks(todo, [source.rows[wanted[place]] for place in todo], predictor.task.needs_images):
            rows = [source.rows[wanted[place]] for place in places]
            pending = predictor.submit(rows, [source.positions[wanted[place]] for place in places])
            lengths += pending.item_lengths()
            truncated += pending.num_truncated
            if waiting is not None:
                self._collect(predictor, waiting, results)
            waiting = (places, pending)
        if waiting is not None:
            self._collect(predictor, waiting, results)
        return results, lengths, truncated

    def _collect(
        self, predictor: Predictor, waiting: tuple[list[int], Pending], results: list[Result | RowError]
    ) -> None:
        places, pending = waiting
        done = predictor.finish(pending)
        for place, result in zip(places, done, strict=True):
            results[place] = result
        failed = sum(isinstance(result, RowError) for result in done)
        self._tick(Tick(len(done), failed, sum(pending.item_lengths())))

    def _receipt(
        self,
        shard_number: int,
        source: SelectedRows,
        table: pa.Table,
        data: bytes,
        results: Sequence[Result | RowError],
        lengths: Sequence[int],
        truncated: int,
        started_at: float,
    ) -> Receipt:
        task = self.predictor.task
        spent = self._spent_since_last_receipt()
        facts = part_facts(table, data)
        summaries = [task.summarize(result) for result in results if not isinstance(result, RowError)]
        return Receipt(
            shard=shard_number, rows=facts.rows, failed=facts.failed, size_bytes=facts.size_bytes, sha256=facts.sha256,
            tokens=spent.tokens, padded_tokens=spent.padded_tokens, generated_tokens=spent.generated_tokens,
            busy_s=spent.seconds, started_at=started_at, ended_at=time.time(), worker=self._name,
            truncated=truncated, lengths=count_lengths(lengths),
            labels=count_labels(s.label for s in summaries if s.label is not None),
            scores=count_scores(s.score for s in summaries if s.score is not None),
            error_types=facts.error_types, left_out=source.left_out,
        )  # fmt: skip

    def _spent_since_last_receipt(self) -> _Counts:
        """Two shards are in the engine at once, so a receipt may count some of the other's work; the sums are exact."""
        with self._lock:
            now = _Counts.of(self._predictor) if self._predictor is not None else _Counts()
            spent, self._counted = now - self._counted, now
            return spent


@dataclass(frozen=True, slots=True)
class _Counts:
    """The engine's counters at one moment."""

    tokens: int = 0
    padded_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, predictor: Predictor) -> _Counts:
        stats = predictor.engine.stats
        return cls(stats.tokens, stats.padded_tokens, stats.generated_tokens, stats.seconds)

    def __sub__(self, other: _Counts) -> _Counts:
        return _Counts(
            self.tokens - other.tokens,
            self.padded_tokens - other.padded_tokens,
            self.generated_tokens - other.generated_tokens,
            self.seconds - other.seconds,
        )


def _chunks(places: Sequence[int], rows: Sequence[Row], images: bool) -> Iterator[list[int]]:
    chunk: list[int] = []
    size = 0
    for place, row in zip(places, rows, strict=True):
        chunk.append(place)
        size += IMAGE_BYTES if images else sum(len(v) for v in row.values() if isinstance(v, (str, bytes)))
        if size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
