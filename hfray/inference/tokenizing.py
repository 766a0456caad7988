"""What a tokenising actor does with a shard of the input: read, make examples, commit, give a receipt.

`tokenize` makes a part of the output from a shard, and nothing else. Where rows of all shards depend on each other
(splits, duplicates, a shuffle, labels that are not known yet) `draft` leaves a shard's examples with the place where
each belongs, and `assembling` makes the parts of them. Knows files and features; Ray Data calls it but it knows nothing
of Ray.
"""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hfray.data.base import Shard
from hfray.data.drafts import PART, POSITION, RANK, draft_facts, encode_draft
from hfray.data.duplicates import encode_hashes, hashes_path
from hfray.data.ledger import ERRORS, Ledger
from hfray.data.parts import ERROR_TYPE
from hfray.data.permutation import stable_hash
from hfray.data.plan import Plan
from hfray.data.routing import Routing
from hfray.data.selection import RowReader, SelectedRows
from hfray.data.token_parts import encode_tokens, facts_of, from_table, to_table
from hfray.errors import DataError, RowError
from hfray.inference.receipt import Receipt, ShardFailure, Tick
from hfray.inference.token_counts import TOKENS, Counted, count_tokens, lengths_of
from hfray.tasks.features.base import Features
from hfray.tasks.features.labels import is_text, names_in
from hfray.types import Array, Ragged, Row

CHUNK_CHARS = 4 * 2**20  # a chunk's tokens and offsets lie in memory as Python objects for a moment
LABELS = "labels"


def error_path(shard: int) -> str:
    """Of the file with a shard's failed rows, from the output's root."""
    return f"{ERRORS}/{shard:08d}.parquet"


class TokenWorker:
    """Makes examples of shards of one job."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        reader: RowReader,
        features: Features,
        *,
        routing: Routing | None = None,
        split_seed: int = 0,
        hashes: bool = False,
        tick: Callable[[Tick], None] = lambda tick: None,
    ) -> None:
        """ledger: of the output, or of the drafts; routing: for drafts; hashes: whether drafts leave the hashes of
        their rows, by which duplicates are found."""
        self._plan = plan
        self._ledger = ledger
        self._reader = reader
        self._features = features
        self._schema = features.schema()
        self._routing = routing
        self._split_seed = split_seed
        self._hashes = hashes
        self._tick = tick
        self._columns = tuple(
            name
            for name in (*features.required_columns(features.options, features.present), *features.optional_columns)
            if name in features.present
        )

    def tokenize(self, shard_number: int) -> Receipt | ShardFailure:
        """Commits the part with the shard's own number; adopts it if it is there already."""
        return self._committed(shard_number, self._part)

    def draft(self, shard_number: int) -> Receipt | ShardFailure:
        """Commits the shard's examples, each with the place in the output where it belongs."""
        return self._committed(shard_number, self._draft)

    def adopt(self, number: int) -> Receipt:
        """The receipt of a part or a draft that is already there, made from its bytes."""
        data = self._ledger.read_part(number)
        name = f"{self._ledger.url}/{self._ledger.layout.path(number)}"
        facts = draft_facts(data, name) if self._routing is not None else facts_of(data, self._ledger.format, name)
        return Counted.from_facts(facts).receipt(number, data, time.time(), adopted=True)

    # -- steps

    def _committed(self, shard_number: int, encode: Callable[[_Made, int], bytes]) -> Receipt | ShardFailure:
        if self._ledger.has_part(shard_number):
            return self.adopt(shard_number)
        started_at = time.time()
        shard = self._plan.shard(shard_number)
        made = self._make(shard)
        if isinstance(made, ShardFailure):
            return made
        return self._commit(shard, made, encode(made, shard_number), started_at)

    def _part(self, made: _Made, shard_number: int) -> bytes:
        made.table = pack(self._features, made.table, made.counted)
        return encode_tokens(made.table, self._ledger.format, made.counted.as_facts())

    def _draft(self, made: _Made, shard_number: int) -> bytes:
        if has_open_labels(self._schema):
            made.counted.names = names_in(made.table[LABELS].to_pylist())
        made.counted.rows = made.table.num_rows
        if self._hashes:
            data = encode_hashes(made.equality, made.documents.tolist())
            self._ledger.storage.replace(hashes_path(shard_number), data)
        return self._routed(made)

    def _make(self, shard: Shard) -> _Made | ShardFailure:
        made = _Made(self._schema.empty_table())
        tables = [made.table]
        positions: list[Array] = []
        documents: list[int] = []
        try:
            for source in self._reader.read_pieces(shard, self._columns):
                self._add(made, shard, source, tables, positions, documents)
                del source  # a document of 100 MB need not wait until its tokens are packed
        except DataError as error:
            return ShardFailure(shard.index, shard.file.url, str(error))
        made.table = pa.concat_tables(tables)
        if len(tables) > 2:
            made.table = made.table.combine_chunks()
        tables.clear()
        made.positions = np.concatenate([made.positions, *positions])
        made.documents = np.array(documents, np.int64)
        counted = made.counted
        counted.documents = len(documents)
        counted.error_types = dict(sorted(counted.error_types.items()))
        count_tokens(counted, lengths_of(made.table))
        return made

    def _add(
        self,
        made: _Made,
        shard: Shard,
        source: SelectedRows,
        tables: list[pa.Table],
        positions: list[Array],
        documents: list[int],
    ) -> None:
        """The examples of some rows of the shard."""
        errors = dict(source.errors)
        todo = [row for row in range(len(source.rows)) if row not in errors]
        for chunk in _chunks(todo, source.rows):
            examples = self._features.encode([source.rows[row] for row in chunk])
            tables.append(to_table(examples.columns, self._schema))
            rows = np.asarray(chunk, np.int64)[examples.rows]
            positions.append(np.asarray(source.positions, np.int64)[rows])
            used = np.unique(rows).tolist()
            documents += [source.positions[row] for row in used]
            if self._routing is not None and self._routing.by_hash:
                made.placement += [self._hash(source.rows[row], self._split_seed) for row in used]
            if self._hashes:
                made.equality += [self._hash(source.rows[row], 0) for row in used]
            errors |= {chunk[number]: error for number, error in examples.errors.items()}
            made.counted.truncated += len(examples.truncated)
            tokens = int(lengths_of(tables[-1]).sum())
            self._tick(Tick(len(chunk) - len(examples.errors), len(examples.errors), tokens))
        if errors:
            made.errors.append(_error_table(shard, source, errors))
        counted = made.counted
        counted.failed += len(errors)
        counted.error_types = dict(Counter(counted.error_types) + Counter(error.type for error in errors.values()))
        counted.left_out = dict(Counter(counted.left_out) + Counter(source.left_out))

    def _routed(self, made: _Made) -> bytes:
        """The draft's bytes."""
        routing, documents = self._routing, made.documents
        if routing is None:
            raise DataError("a draft is made without a routing; this is a mistake in hfray")
        hashes = made.placement or [0] * len(documents)
        splits = np.array([routing.split_of(*row) for row in zip(documents.tolist(), hashes, strict=True)], int)
        ranks, parts = np.zeros(len(documents), np.int64), np.zeros(len(documents), np.int64)
        for split in range(len(routing.splits)):
            mine = splits == split
            ranks[mine] = routing.ranks(split, documents[mine])
            parts[mine] = routing.parts(split, ranks[mine])
        groups = np.array([routing.group(*row) for row in zip(splits.tolist(), parts.tolist(), strict=True)], int)
        document = np.searchsorted(documents, made.positions)  # of each example
        table = made.table
        for name, values in ((RANK, ranks), (POSITION, documents), (PART, parts)):
            table = table.append_column(name, pa.array(values[document], pa.int64()))
        return encode_draft(table, splits[document], groups[document], made.counted.as_facts())

    def _hash(self, row: Row, seed: int) -> int:
        """128 bits of the columns that the mode reads."""
        return stable_hash([_bytes_of(row.get(name)) for name in self._columns], str(seed).encode())

    def _commit(self, shard: Shard, made: _Made, data: bytes, started_at: float) -> Receipt:
        if made.errors:  # before the part: a part speaks of errors that are there
            self._ledger.storage.replace(error_path(shard.index), _error_file(made.errors))
        if not self._ledger.commit_part(shard.index, data):
            return self.adopt(shard.index)  # another attempt was first, and what it wrote is what counts
        return made.counted.receipt(shard.index, data, started_at)


@dataclass(slots=True)
class _Made:
    """The examples of a shard.

    positions: int64 [num_examples], of the row in the input that each was made from; documents: int64 [num_documents],
    ascending, of all rows that made some; placement, equality: their hashes, where they are wanted.
    errors: the failed rows, as `errors.parquet` shows them.
    """

    table: pa.Table
    positions: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    documents: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    placement: list[int] = field(default_factory=list)
    equality: list[int] = field(default_factory=list)
    errors: list[pa.Table] = field(default_factory=list)
    counted: Counted = field(default_factory=Counted)


def has_open_labels(schema: pa.Schema) -> bool:
    """Whether the examples' labels are names that become indexes once all of them are known."""
    if LABELS not in schema.names:
        return False
    type_ = schema.field(LABELS).type
    return is_text(type_.value_type if pa.types.is_list(type_) else type_)


def pack(features: Features, table: pa.Table, counted: Counted) -> pa.Table:
    """The examples as they go into a part: packed where the mode packs. Completes the counts."""
    if features.packs:
        columns = features.pack(from_table(table))
        ids = columns[TOKENS]
        counted.padded_tokens = len(ids.values) if isinstance(ids, Ragged) else int(np.size(ids))
        table = to_table(columns, features.packed_schema())
    counted.rows = table.num_rows
    return table


def _error_table(shard: Shard, source: SelectedRows, errors: dict[int, RowError]) -> pa.Table:
    """`file`, `row` (its number in the file), the input columns, `error`."""
    failed = sorted(errors)
    table = source.table.take(pa.array(failed, type=pa.int64()))
    rows = [shard.first_row + source.positions[row] - shard.first_position for row in failed]
    table = table.add_column(0, "file", pa.array([shard.file.url] * len(failed)))
    table = table.add_column(1, "row", pa.array(rows, pa.int64()))
    records = pa.array([errors[row].as_record() for row in failed], ERROR_TYPE)
    return table.append_column("error", records).replace_schema_metadata(None)


def _error_file(tables: Sequence[pa.Table]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.concat_tables(tables), sink, compression="zstd")
    return sink.getvalue()


def _bytes_of(value: Any) -> bytes:
    """One value, the same bytes on every machine."""
    if isinstance(value, bytes):
        return b"b" + value
    if isinstance(value, str):
        return b"s" + value.encode("utf-8", "surrogatepass")
    return b"j" + json.dumps(value, sort_keys=True, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _chunks(numbers: Sequence[int], rows: Sequence[Row]) -> Iterator[list[int]]:
    chunk: list[int] = []
    size = 0
    for number in numbers:
        chunk.append(number)
        size += sum(len(value) for value in rows[number].values() if isinstance(value, str))
        if size >= CHUNK_CHARS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
