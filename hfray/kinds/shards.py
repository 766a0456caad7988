"""Brings every shard of a ledger to its receipt: what is there is taken, what is missing is run, in rounds.

Knows the ledger, the pool and receipts; not what a worker does to a shard.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hfray.data.lease import Lease
from hfray.data.ledger import Ledger
from hfray.errors import DataError, EngineError
from hfray.inference.receipt import Receipt, ShardFailure
from hfray.inference.totals import Totals
from hfray.kinds.cluster import Cluster
from hfray.kinds.pool import WorkerFactory, run_shards
from hfray.kinds.progress import Progress
from hfray.kinds.ray_errors import as_hfray_error
from hfray.kinds.watch import watched
from hfray.spec.sections import WorkersSpec

RECEIPTS_EVERY_S = 10.0
ROUNDS = 3  # in which shards are given out whose answers did not come back


@dataclass(slots=True)
class ShardRun:
    """All shards of one ledger. The counts are whole once `complete` has returned."""

    ledger: Ledger
    num_shards: int
    method: str
    """Of the worker, that runs a shard."""
    make_worker: WorkerFactory
    adopt: Callable[[int], Receipt]
    """The receipt of a part that is there, read here."""
    workers: WorkersSpec
    progress: Progress
    phase: str
    """What the progress line calls it: "scoring"."""
    input_url: str
    """A file that every node must see."""
    check: Callable[[Totals], None]
    """Called after each receipt; raises to end the run."""
    receipts: dict[int, Receipt] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)
    failures: dict[str, str] = field(default_factory=dict)
    """File to why it cannot be read."""
    unreadable: set[int] = field(default_factory=set)
    model: dict[str, Any] | None = None

    def complete(self, cluster: Cluster, lease: Lease) -> None:
        """Raises EngineError when shards stay without an answer; what is committed stays."""
        missing = self._resume()
        for _ in range(ROUNDS):
            if not missing:
                return
            self.run(cluster, lease, missing, self.method)
            # A worker that is killed takes answers with it; what it committed is there all the same.
            missing = self._missing() and self._resume()
        if missing:
            raise EngineError(
                f"{len(missing):,} shards came back without an answer, the first is {missing[0]}; what is finished is "
                "kept: run the same command again"
            )

    def run(self, cluster: Cluster, lease: Lease, shards: list[int], method: str) -> list[Receipt]:
        """Runs these shards once and gives the receipts that came back; those of the ledger's own method are taken."""
        if not cluster.connected:
            self.progress.phase("starting ray")
        cluster.connect()
        cluster.probe([self.input_url], self.ledger.storage)
        self.progress.phase("starting workers")
        done: list[Receipt] = []
        saved, saved_at = 0, time.monotonic()
        ours = method == self.method
        with watched(
            self.progress,
            phase=self.phase,
            check_start=cluster.check_room,
            resumed_rows=self.totals.rows,
            resumed_failed=self.totals.failed,
        ) as watch:
            answers = run_shards(cluster, shards, self.make_worker, self.workers, counter=watch.counter, method=method)
            try:
                for answer in answers:
                    if isinstance(answer, ShardFailure):
                        self.failures[answer.file] = answer.reason
                        self.unreadable.add(answer.shard)
                        continue
                    done.append(answer)
                    if ours:
                        self._take(answer)
                        if time.monotonic() - saved_at > RECEIPTS_EVERY_S:
                            self.ledger.save_receipts([receipt.to_json() for receipt in done[saved:]])
                            saved, saved_at = len(done), time.monotonic()
                        self.check(self.totals)
                    if lease.lost.is_set():
                        lease.check()
            except Exception as error:
                raise as_hfray_error(error) from error
            finally:
                answers.close()  # type: ignore[attr-defined]
                if ours:
                    self.ledger.save_receipts([receipt.to_json() for receipt in done[saved:]])
        self.model = watch.model or self.model
        return done

    def replace(self, receipts: dict[int, Receipt]) -> None:
        """Takes these in place of the ones there are, and counts anew."""
        self.receipts.update(receipts)
        self.totals = Totals()
        for receipt in self.receipts.values():
            self.totals.add(receipt)

    def in_order(self) -> list[Receipt]:
        return [self.receipts[shard] for shard in sorted(self.receipts)]

    def _resume(self) -> list[int]:
        """Shards that a worker has to look at: to run them, or to read the parts again whose receipts were lost."""
        sizes = self.ledger.part_sizes()
        if (last := max(sizes, default=-1)) >= self.num_shards:
            raise DataError(f"{self.ledger.url}/data holds part {last}, but the job has {self.num_shards}")
        for line in self.ledger.load_receipts():
            receipt = Receipt.from_json(line)
            if sizes.get(receipt.shard) == receipt.size_bytes:
                self._take(replace(receipt, adopted=True))
        missing = self._missing()
        if any(shard not in sizes for shard in missing):
            return missing
        for shard in missing:  # killed between the last commit and the end: no worker is needed
            self._take(self.adopt(shard))
        return []

    def _missing(self) -> list[int]:
        """Shards without a receipt, but for those that cannot be read."""
        known = self.receipts.keys() | self.unreadable
        return [shard for shard in range(self.num_shards) if shard not in known]

    def _take(self, receipt: Receipt) -> None:
        if receipt.shard not in self.receipts:
            self.receipts[receipt.shard] = receipt
            self.totals.add(receipt)
