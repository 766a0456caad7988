"""What an actor does with a part of the output in a job of two phases: gather its rows from the drafts, put them in
order, pack them, commit. Knows drafts and features; not Ray, not the input's files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from hfray.data.drafts import PART, POSITION, RANK, read_segment
from hfray.data.ledger import Ledger
from hfray.data.plan import Plan
from hfray.data.routing import Routing
from hfray.data.token_parts import encode_tokens, facts_of, to_table
from hfray.inference.receipt import Receipt, ShardFailure, Tick
from hfray.inference.token_counts import Counted, count_tokens, lengths_of
from hfray.inference.tokenizing import LABELS, pack
from hfray.tasks.features.base import Features
from hfray.tasks.features.labels import final_label_type, index_labels
from hfray.types import Array

ROW_COLUMNS = (RANK, POSITION, PART)


class AssemblingWorker:
    """Makes parts of the output of one job."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        features: Features,
        routing: Routing,
        *,
        duplicates: Array | None = None,
        labels: Sequence[str] = (),
        absent: frozenset[int] = frozenset(),
        tick: Callable[[Tick], None] = lambda tick: None,
    ) -> None:
        """duplicates: int64, ascending, positions of rows to leave out; labels: the names that all drafts together
        have; absent: shards that could not be read and left no draft."""
        self._plan = plan
        self._ledger = ledger
        self._features = features
        self._routing = routing
        self._duplicates = duplicates
        self._labels = tuple(labels)
        self._absent = absent
        self._tick = tick

    def assemble(self, part: int) -> Receipt | ShardFailure:
        """Commits a part; adopts it if it is there already."""
        if self._ledger.has_part(part):
            return self.adopt(part)
        started_at = time.time()
        split = self._ledger.layout.split_of(part)
        table, documents, left_out = self._gather(split, part - self._ledger.layout.first_part(split))
        if self._labels and LABELS in table.column_names:
            table = _with_indexes(table, self._labels)
        counted = Counted(documents=documents, left_out={"deduplicate": left_out} if left_out else {})
        count_tokens(counted, lengths_of(table))
        table = pack(self._features, table, counted)
        data = encode_tokens(table, self._ledger.format, counted.as_facts())
        if not self._ledger.commit_part(part, data):
            return self.adopt(part)
        self._tick(Tick(counted.documents, 0, counted.tokens))
        return counted.receipt(part, data, started_at)

    def adopt(self, part: int) -> Receipt:
        """The receipt of a part that is already there, made from its bytes."""
        data = self._ledger.read_part(part)
        facts = facts_of(data, self._ledger.format, f"{self._ledger.url}/{self._ledger.layout.path(part)}")
        return Counted.from_facts(facts).receipt(part, data, time.time(), adopted=True)

    def _gather(self, split: int, part: int) -> tuple[pa.Table, int, int]:
        """The examples of a part in order, how many rows they are of, and how many were left out as duplicates."""
        group = self._routing.group(split, part)
        schema = self._features.schema()
        for name in ROW_COLUMNS:
            schema = schema.append(pa.field(name, pa.int64()))
        tables = [schema.empty_table()]
        num_duplicates = 0
        for shard in self._routing.sources(self._plan, split, part):
            if shard in self._absent:
                continue
            segment = read_segment(self._ledger.storage, shard, split, group)
            if segment is None:
                continue
            segment = segment.filter(pa.array(segment[PART].to_numpy() == part))
            later = self._are_duplicates(segment[POSITION].to_numpy())
            num_duplicates += len(np.unique(segment[POSITION].to_numpy()[later]))
            tables.append(segment.filter(pa.array(~later)).cast(schema))
        table = pa.concat_tables(tables)
        # Rows of many examples have one rank; a stable sort keeps their examples in order.
        ranks = table[RANK].to_numpy()
        table = table.take(pa.array(np.argsort(ranks, kind="stable"))).drop_columns(list(ROW_COLUMNS))
        return table.combine_chunks(), len(np.unique(ranks)), num_duplicates

    def _are_duplicates(self, positions: Array) -> Array:
        """bool [num_rows]"""
        if self._duplicates is None or not len(self._duplicates):
            return np.zeros(len(positions), bool)
        places = np.minimum(np.searchsorted(self._duplicates, positions), len(self._duplicates) - 1)
        return np.asarray(self._duplicates[places] == positions)


def _with_indexes(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The table with the labels' names replaced by their indexes."""
    place = table.schema.get_field_index(LABELS)
    raw_type = table.schema.field(place).type
    field = pa.field(LABELS, final_label_type(raw_type))
    column = index_labels(table[LABELS].to_pylist(), names, raw_type)
    return table.set_column(place, field, to_table({LABELS: column}, pa.schema([field]))[LABELS])
