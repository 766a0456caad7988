"""`kind: tokenize`: rows to token shards, in one phase or in two.

Knows every layer below; holds no logic that belongs to one of them.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from hfray.data.drafts import draft_ledger
from hfray.data.duplicates import HASHES, find_duplicates
from hfray.data.huggingface import splits_of
from hfray.data.layout import SPLIT, Layout, PartFormat
from hfray.data.lease import Lease
from hfray.data.ledger import DRAFTS, ERRORS, Ledger
from hfray.data.routing import Routing, Split, shards_between, splits_by_share
from hfray.data.tokens import Tokens
from hfray.errors import SpecError
from hfray.inference.receipt import Tick
from hfray.inference.tokenizing import has_open_labels
from hfray.inference.totals import Totals
from hfray.kinds.cluster import Cluster
from hfray.kinds.corpus import Corpus
from hfray.kinds.indexing import index_input, index_splits
from hfray.kinds.job import JobRun
from hfray.kinds.report import Report
from hfray.kinds.rows import where_of
from hfray.kinds.shards import ShardRun
from hfray.kinds.token_output import (
    corpus,
    read_tokens_of,
    samples,
    split_facts,
    token_splits,
    write_dataset_files,
    write_error_table,
    write_tokenizer,
    write_tokens_file,
)
from hfray.kinds.token_workers import AssemblingFactory, TokenFactory, TokenSetup
from hfray.models.source import ModelSource, resolve_source
from hfray.models.tokenizers import TokenizerFacts, load_tokenizer
from hfray.spec.fields import fingerprint as digest_of
from hfray.spec.sections import InputSpec
from hfray.spec.tokenize import TokenizeJob
from hfray.tasks.features.base import Features

DUPLICATES = f"{DRAFTS}/duplicates.npy"


class TokenizeRun(JobRun[TokenizeJob]):
    """One run of a tokenize job."""

    _source: ModelSource
    _tokenizer: Any
    _setup: TokenSetup

    def _check(self) -> TokenizeJob:
        job = self._job
        where_of(job)
        if job.model is None:
            raise SpecError("model: missing; whose tokenizer")
        self._source = resolve_source(job.model.path, job.model.revision, kind="tokenizer")
        self._tokenizer = load_tokenizer(self._source)
        self._facts = TokenizerFacts.of(self._tokenizer, self._source.name, with_template=job.mode.name == "chat")
        return job.model_copy(update={"model": job.model.model_copy(update={"revision": self._source.revision})})

    def _index(self, ledger: Ledger, ray_cluster: Cluster) -> dict[str, Any]:
        job = self._job
        names = _own_splits(job)
        if names:
            self._plan, self._failures, sizes = index_splits(
                job.input, names, job.shard_rows, ledger, ray_cluster, self._progress.phase
            )
        else:
            self._plan, self._failures = index_input(
                job.input, job.shard_rows, ledger, ray_cluster, self._progress.phase
            )
            own = job.input.split or ""
            names, sizes = (own if re.fullmatch(SPLIT, own) else "train",), [self._plan.num_rows]
        self._setup = TokenSetup(job, self._source, self._plan)
        features = self._setup.features(self._tokenizer)
        self._splits = self._plan_splits(names, sizes)
        self._two_phases = bool(job.split or job.shuffle or job.deduplicate) or has_open_labels(features.schema())
        return {"tokenizer": {"fingerprint": self._facts.fingerprint, "template": self._facts.template}}

    def _plan_splits(self, names: tuple[str, ...], sizes: list[int]) -> tuple[Split, ...]:
        job = self._job
        if job.split is not None:
            shares = [(name, share) for name in ("validation", "test") if (share := getattr(job.split, name))]
            return splits_by_share(shares, self._plan.num_rows, job.shard_rows)
        if len(names) == 1:
            return (Split(names[0], None, 0, self._plan.num_rows, max(1, self._plan.num_shards)),)
        firsts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        # No shard spans two files, so none spans two splits.
        return tuple(
            Split(name, None, first, size, max(1, len(shards_between(self._plan, first, first + size))))
            for name, first, size in zip(names, firsts, sizes, strict=False)
        )

    def _output(self, fingerprint: str) -> Ledger:
        format: PartFormat = "arrow" if self._job.output.format == "datasets" else "parquet"
        layout = Layout("data", format, tuple((split.name, split.parts) for split in self._splits))
        return Ledger(self._job.output.path, format, fingerprint, layout=layout)

    def _work(self, ray_cluster: Cluster, lease: Lease, *, retry_errors: bool) -> Report:
        if retry_errors:
            raise SpecError("--retry-errors: a tokenised row fails for good; mend the data and use --restart")
        self._ledger.storage.make_dirs(ERRORS)
        make = TokenFactory(self._setup, self._ledger)
        reads = {
            "check": lambda totals: self._check_error_rate(totals.failed, self._plan.num_rows, totals.error_types),
            "failures": self._failures,
            "input_url": self._plan.indexes[0].file.url,
        }
        if not self._two_phases:
            self._shards = self._run("tokenize", self._ledger, self._plan.num_shards, make, "tokenising", **reads)
            self._shards.complete(ray_cluster, lease)
            return self._finish(self._shards, lease)
        drafts = draft_ledger(self._ledger)
        drafts.open(self._identity)
        self._ledger.storage.make_dirs(HASHES)
        routing = Routing(self._splits, self._job.shuffle, self._job.seed)
        make = replace(make, ledger=drafts, routing=routing)
        first = self._run("draft", drafts, self._plan.num_shards, make, "tokenising", **reads)
        first.complete(ray_cluster, lease)
        self._refuse_unread_files()
        self._refuse_nothing(first.totals)
        names = sorted({name for receipt in first.receipts.values() for name in receipt.names})
        assemble = AssemblingFactory(
            replace(make, ledger=self._ledger),
            tuple(names),
            self._find_duplicates(first),
            frozenset(first.unreadable),
        )
        num_parts = sum(split.parts for split in self._splits)
        second = self._run("assemble", self._ledger, num_parts, assemble, "assembling", **(reads | {"check": _nothing}))
        self._shards = second
        second.complete(ray_cluster, lease)
        return self._finish(second, lease, first=first, labels=names)

    def _run(self, method: str, ledger: Ledger, num_shards: int, make: Any, phase: str, **how: Any) -> ShardRun:
        reader = cache(lambda: make(_no_tick, _no_facts))  # only where parts have lost their receipts
        return ShardRun(
            ledger=ledger,
            num_shards=num_shards,
            method=method,
            make_worker=make,
            adopt=lambda shard: reader().adopt(shard),
            workers=self._job.workers,
            progress=self._progress,
            phase=phase,
            **how,
        )

    def _find_duplicates(self, drafts: ShardRun) -> str | None:
        """The file with the positions of rows to leave out; None if the job does not ask for them."""
        if not self._job.deduplicate:
            return None
        self._progress.phase("finding duplicates")
        found = find_duplicates(self._ledger.storage, sorted(drafts.receipts), drafts.totals.documents)
        sink = io.BytesIO()
        np.save(sink, found, allow_pickle=False)
        self._ledger.write(DUPLICATES, sink.getvalue())
        return DUPLICATES

    def _finish(
        self, shards: ShardRun, lease: Lease, *, first: ShardRun | None = None, labels: list[str] | None = None
    ) -> Report:
        self._progress.phase("finishing")
        lease.check()
        read = first or shards
        totals = read.totals
        self._check_error_rate(totals.failed, totals.documents + totals.failed, totals.error_types)
        self._refuse_unread_files()
        self._refuse_nothing(totals)
        failed = [receipt.shard for receipt in read.in_order() if receipt.failed]
        write_error_table(self._ledger, failed, self._setup.columns.schema)
        write_tokenizer(self._ledger, self._tokenizer)
        features = self._setup.features(self._tokenizer)
        receipts = shards.in_order()
        splits = split_facts(self._ledger, self._splits, receipts)
        made = corpus(features.name, features.max_length, self._plan.num_rows, splits, totals, shards.totals)
        table = read_tokens_of(self._ledger, receipts[0].shard)
        made = made.model_copy(update={"samples": samples(table, self._tokenizer)})
        schema = table.schema
        write_tokens_file(
            self._ledger, self._tokens(features, schema, made, labels or list(features.label_names or ()))
        )
        if self._job.output.format == "datasets":
            parts = [receipt.shard for receipt in receipts]
            write_dataset_files(self._ledger, self._splits, parts, schema, self._fingerprint)
        lease.check()
        report = self._report("complete", "", corpus=made, read=totals)
        self._succeed(report, receipts)
        self._ledger.storage.delete_prefix(DRAFTS)
        return report

    def _tokens(self, features: Features, schema: pa.Schema, made: Corpus, labels: list[str]) -> Tokens:
        return Tokens(
            fingerprint=self._fingerprint,
            source=digest_of(self._plan.input_identity()),
            tokenizer=self._facts,
            mode=features.name,
            options=features.options.model_dump(mode="json"),
            task=self._job.task,
            max_length=features.max_length,
            packed=features.packs,
            labels=tuple(labels),
            columns={field.name: str(field.type) for field in schema},
            splits=token_splits(made),
        )

    def _report(
        self, status: Any, message: str, corpus: Corpus | None = None, read: Totals | None = None, **facts: Any
    ) -> Report:
        if read is not None:  # of two phases, the first one knows the rows that failed
            facts |= {"failed": read.failed, "error_types": read.error_types, "truncated": read.truncated}
            facts |= {"lengths": tuple(read.lengths), "computed_tokens": read.computed_tokens, "busy_s": read.busy_s}
            facts |= {"scoring_s": read.throughput.span_s, "throughput": read.throughput.points()}
            facts |= {"workers": len(read.workers)}
        return super()._report(status, message, task=self._job.mode.name, corpus=corpus, **facts)

    def _refuse_nothing(self, totals: Totals) -> None:
        """Raises SpecError that says which step left no row."""
        if totals.documents:
            return
        steps = [f"input.{step} left out {count:,}" for step, count in totals.left_out.items() if count]
        steps += [f"{totals.failed:,} failed"] if totals.failed else []
        raise SpecError(f"nothing is left to tokenise of {self._plan.num_rows:,} rows: {', '.join(steps) or 'no rows'}")

    def _where_errors_are(self) -> str:
        return f"look at the files in {self._ledger.url}/{ERRORS}"


def _own_splits(job: TokenizeJob) -> tuple[str, ...]:
    """The splits that the input has itself, where the job takes all of them."""
    spec: InputSpec = job.input
    names = splits_of(spec.path[0]) if spec.split is None and len(spec.path) == 1 else ()
    if len(names) < 2:
        return ()
    for key in ("select", "limit", "sample"):
        if getattr(spec, key) is not None:
            raise SpecError(f"input.{key}: the data set has the splits {', '.join(names)}: say which with input.split")
    if job.split is not None:
        raise SpecError(f"split: the data set has splits already ({', '.join(names)}): say which with input.split")
    return names


def _no_tick(tick: Tick) -> None:
    pass


def _no_facts(facts: dict[str, Any]) -> None:
    pass


def _nothing(totals: Totals) -> None:
    pass
