"""`kind: tokenize` with mode `tokenizer`: learns a tokenizer from the rows.

One task of Ray reads all rows in order and counts its words; what is learned depends on the rows and their order alone.
Knows rows and files; how a tokenizer is learned is `models.vocabulary`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

from hfray.data.lease import Lease
from hfray.data.ledger import Ledger
from hfray.data.plan import Plan
from hfray.data.tokens import TOKENIZER_FOLDER
from hfray.kinds.cluster import Cluster
from hfray.kinds.corpus import Vocabulary
from hfray.kinds.indexing import index_input
from hfray.kinds.job import JobRun
from hfray.kinds.ray_task import run_task
from hfray.kinds.report import Report
from hfray.kinds.rows import columns_of, row_reader, where_of
from hfray.spec.tokenize import TokenizeJob
from hfray.tasks.features.tokenizer_options import TokenizerOptions


class TokenizerRun(JobRun[TokenizeJob]):
    """One run of a job that trains a tokenizer."""

    def _check(self) -> TokenizeJob:
        where_of(self._job)
        return self._job

    def _index(self, ledger: Ledger, ray_cluster: Cluster) -> dict[str, Any]:
        self._plan, self._failures = index_input(
            self._job.input, self._job.shard_rows, ledger, ray_cluster, self._progress.phase
        )
        columns_of(self._job, self._plan).require(("text",), "mode tokenizer")
        return {}

    def _output(self, fingerprint: str) -> Ledger:
        return Ledger(self._job.output.path, "parquet", fingerprint)

    def _work(self, ray_cluster: Cluster, lease: Lease, *, retry_errors: bool) -> Report:
        self._refuse_unread_files()
        self._progress.phase("starting ray")
        ray_cluster.connect()
        ray_cluster.probe([self._plan.indexes[0].file.url], self._ledger.storage)
        self._progress.phase("learning")
        workers = self._job.workers
        texts = Texts(self._job, self._plan)
        learned = run_task(workers, lease, learn, texts, max(1, int(workers.cpus)))
        self._progress.phase("finishing")
        lease.check()
        self._ledger.storage.make_dirs(TOKENIZER_FOLDER)
        for name, data in learned.files.items():
            self._ledger.write(f"{TOKENIZER_FOLDER}/{name}", data)
        report = self._report("complete", "", task="tokenizer", rows=self._plan.num_rows, vocabulary=learned.facts)
        self._succeed(report, [])
        return report


@dataclass(frozen=True)
class Texts:
    """The texts of all rows, in order. Picklable."""

    job: TokenizeJob
    plan: Plan

    def __iter__(self) -> Iterator[Any]:
        """One value per row, a list of texts where a row holds one; None for a row that could not be read."""
        reader = row_reader(self.job, self.plan)
        for number in range(self.plan.num_shards):
            read = reader.read(self.plan.shard(number), ("text",))
            for row, values in enumerate(read.rows):
                value = None if row in read.errors else values["text"]
                yield from value if isinstance(value, list) else (value,)


@dataclass(frozen=True)
class Learned:
    """A tokenizer's files and what a report says of it."""

    files: dict[str, bytes]
    facts: Vocabulary


def learn(texts: Texts, num_threads: int) -> Learned:
    """Runs on a worker."""
    import os

    os.environ["RAYON_NUM_THREADS"] = str(num_threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    from hfray.models.tokenizers import fingerprint, save_tokenizer
    from hfray.models.vocabulary import train_tokenizer

    started_at = time.time()
    tokenizer, corpus = train_tokenizer(texts, cast(TokenizerOptions, texts.job.mode))
    facts = Vocabulary(
        size=len(tokenizer), fingerprint=fingerprint(tokenizer), learned_s=time.time() - started_at, **asdict(corpus)
    )
    return Learned(save_tokenizer(tokenizer), facts)
