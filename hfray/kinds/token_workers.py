"""Makes the workers of tokenize jobs, in the driver's words. The driver makes the factories; they travel, and work over
there. Knows modes, tokenizers and ledgers; not Ray, not which shards there are to do.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hfray.data.columns import Columns
from hfray.data.ledger import Ledger
from hfray.data.plan import Plan
from hfray.data.routing import Routing
from hfray.errors import SpecError
from hfray.inference.assembling import AssemblingWorker
from hfray.inference.receipt import Tick
from hfray.inference.tokenizing import TokenWorker
from hfray.kinds.rows import columns_of, row_reader
from hfray.models.source import ModelSource
from hfray.models.tokenizers import load_tokenizer, safe_max_length
from hfray.spec.tokenize import TokenizeJob
from hfray.tasks.features import MODES
from hfray.tasks.features.base import Features
from hfray.types import Array


@dataclass(frozen=True)
class TokenSetup:
    """What driver and workers make features and readers of. Picklable."""

    job: TokenizeJob
    source: ModelSource
    plan: Plan

    @cached_property
    def columns(self) -> Columns:
        return columns_of(self.job, self.plan)

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
            row_reader(job, self.setup.plan),
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
