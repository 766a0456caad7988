"""`kind: tokenize`: rows to token shards, in one phase or in two.

Knows every layer below; holds no logic that belongs to one of them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from hfray.data.columns import Columns
from hfray.data.drafts import draft_ledger
from hfray.data.duplicates import HASHES, find_duplicates
from hfray.data.formats import FORMATS
from hfray.data.huggingface import splits_of
from hfray.data.layout import SPLIT, Layout, PartFormat
from hfray.data.lease import Lease
from hfray.data.ledger import DRAFTS, ERRORS, Ledger
from hfray.data.plan import Plan
from hfray.data.routing import Routing, Split, splits_by_share
from hfray.data.selection import RowReader
from hfray.data.tokens import Tokens
from hfray.data.where import compile_where
from hfray.errors import SpecError
from hfray.inference.assembling import AssemblingWorker
from hfray.inference.receipt import Tick, Totals
from hfray.inference.tokenizing import TokenWorker, has_open_labels
from hfray.kinds.cluster import Cluster
from hfray.kinds.corpus import Corpus
from hfray.kinds.indexing import index_input, index_splits
from hfray.kinds.job import JobRun
from hfray.kinds.report import Report
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
from hfray.models.source import ModelSource, resolve_source
from hfray.models.tokenizers import TokenizerFacts, load_tokenizer, safe_max_length
from hfray.spec.fields import fingerprint as digest_of
from hfray.spec.sections import InputSpec
from hfray.spec.tokenize import TokenizeJob
from hfray.tasks.features import MODES
from hfray.tasks.features.base import Features
from hfray.types import Array

DUPLICATES = f"{DRAFTS}/duplicates.npy"


class TokenizeRun(JobRun[TokenizeJob]):
    """One run of a tokenize job."""

    _source: ModelSource
    _tokenizer: Any
    _setup: TokenSetup

    def _check(self) -> TokenizeJob:
        job = self._job
        if job.input.where is not None:
            compile_where(job.input.where)
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
        if job.input.where is not None:
            self._setup.columns.require(sorted(compile_where(job.input.where).columns), "input.where")
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
        shards = _shards_of(self._plan, firsts)
        return tuple(
            Split(name, None, first, size, max(1, count))
            for name, first, size, count in zip(names, firsts, sizes, shards, strict=False)
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


@dataclass(frozen=True)
class TokenSetup:
    """What driver and workers make features and readers of. Picklable."""

    job: TokenizeJob
    source: ModelSource
    plan: Plan

    @cached_property
    def columns(self) -> Columns:
        return Columns(self.job.input.columns, self.plan.schema, FORMATS[self.plan.indexes[0].file.format].payload)

    def features(self, tokenizer: Any) -> Features:
        """Raises SpecError for columns that are missing and options that do not fit."""
        present = {field.name: field.type for field in self.columns.schema}
        name, options = self.job.mode.name, self.job.mode
        if self.job.task is not None and name == "plain" and "text_pair" in present:
            name, options = "pair", MODES["pair"].Options(**options.model_dump(exclude={"name"}), name="pair")
        mode = MODES[name]
        self.columns.require(mode.required_columns(options, present), f"mode {name}")
        max_length = self.job.max_length or mode.default_max_length(safe_max_length(tokenizer))
        return mode(options, tokenizer, max_length, present)

    def reader(self) -> RowReader:
        where = None if self.job.input.where is None else compile_where(self.job.input.where)
        return RowReader(self.plan, self.columns, where=where, sample=self.job.input.sample, seed=self.job.seed)

    def worker_features(self) -> Features:
        return self.features(load_tokenizer(self.source.located()))


@dataclass(frozen=True)
class TokenFactory:
    """Makes the worker of one actor. Picklable."""

    setup: TokenSetup
    ledger: Ledger
    routing: Routing | None = None

    def __call__(self, tick: Callable[[Tick], None], loaded: Callable[[dict[str, Any]], None]) -> TokenWorker:
        job = self.setup.job
        return TokenWorker(
            self.setup.plan,
            self.ledger,
            self.setup.reader(),
            self.setup.worker_features(),
            routing=self.routing,
            split_seed=0 if job.split is None else job.split.seed,
            hashes=job.deduplicate,
            tick=tick,
        )


@dataclass(frozen=True)
class AssemblingFactory:
    """Makes the worker of one actor of the second phase. Picklable."""

    first: TokenFactory
    labels: tuple[str, ...]
    duplicates: str | None
    absent: frozenset[int]

    def __call__(self, tick: Callable[[Tick], None], loaded: Callable[[dict[str, Any]], None]) -> AssemblingWorker:
        if self.first.routing is None:
            raise SpecError("parts are assembled without a routing; this is a mistake in hfray")
        return AssemblingWorker(
            self.first.setup.plan,
            self.first.ledger,
            self.first.setup.worker_features(),
            self.first.routing,
            duplicates=None if self.duplicates is None else _load(self.first.ledger, self.duplicates),
            labels=self.labels,
            absent=self.absent,
            tick=tick,
        )


def _load(ledger: Ledger, path: str) -> Array:
    found: Array = np.load(io.BytesIO(ledger.read(path)), allow_pickle=False)
    return found


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


def _shards_of(plan: Plan, firsts: list[int]) -> list[int]:
    """How many shards each stretch of positions has; no shard spans two files, so none spans two stretches."""
    counts = [0] * (len(firsts) - 1)
    for number in range(plan.num_shards):
        counts[int(np.searchsorted(firsts, plan.shard(number).first_position, side="right")) - 1] += 1
    return counts


def _no_tick(tick: Tick) -> None:
    pass


def _no_facts(facts: dict[str, Any]) -> None:
    pass


def _nothing(totals: Totals) -> None:
    pass
