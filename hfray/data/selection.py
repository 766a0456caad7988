"""A shard as a job wants it: its columns renamed, the rows that `sample` and `where` leave. Knows rows and their places
in the input; not what is made of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from hfray.data.base import Shard
from hfray.data.columns import Columns
from hfray.data.formats import read_shard
from hfray.data.permutation import Permutation
from hfray.data.pieces import pieces
from hfray.data.plan import Plan
from hfray.data.where import Where
from hfray.errors import RowError
from hfray.types import Array, Row


@dataclass(frozen=True, slots=True)
class SelectedRows:
    """The rows of a shard that are left. `errors` are rows that could not be read or judged, by row number; a task
    never sees them.

    positions: of each row in the whole input; left_out: how many rows each step took away.
    """

    table: pa.Table
    rows: list[Row]
    errors: dict[int, RowError]
    positions: list[int]
    left_out: dict[str, int]


class RowReader:
    """Reads shards of one plan. Picklable: no; made where it is used."""

    def __init__(
        self,
        plan: Plan,
        columns: Columns,
        *,
        where: Where | None = None,
        sample: float | None = None,
        seed: int = 0,
    ) -> None:
        """sample: how many rows of the plan, or which share of them, chosen by `seed`."""
        self._schema = plan.schema
        self._rows_in_file = {index.file.url: index.num_rows for index in plan.indexes}
        self._columns = columns
        self._where = where
        self._sample = None if sample is None else _Sample(plan.num_rows, sample, seed)

    def read_pieces(self, shard: Shard, wanted: Collection[str]) -> Iterator[SelectedRows]:
        """The shard in pieces that fit in memory, in order; at least one. Raises as `read`."""
        if not shard.num_rows:
            yield self.read(shard, wanted)
        for piece in pieces(shard, self._rows_in_file[shard.file.url]):
            yield self.read(piece, wanted)

    def read(self, shard: Shard, wanted: Collection[str]) -> SelectedRows:
        """The rows that are left, with the `wanted` columns. Raises DataError when the file cannot be read."""
        read = self._columns.apply(read_shard(shard, self._schema))
        left_out: dict[str, int] = {}
        numbers = list(range(read.num_rows))
        if self._sample is not None:
            numbers = np.flatnonzero(self._sample.has(shard.first_position + np.arange(read.num_rows))).tolist()
            left_out["sample"] = read.num_rows - len(numbers)
            read = read.take(numbers)
        positions = [shard.first_position + number for number in numbers]
        errors = dict(read.errors)
        columns = {*wanted, *(() if self._where is None else self._where.columns)}
        rows = read.rows(columns)
        if self._where is None:
            return SelectedRows(read.table, list(rows), errors, positions, left_out)
        keep = [number for number, row in enumerate(rows) if _keeps(self._where, row, number, errors)]
        left_out["where"] = len(rows) - len(keep)
        return SelectedRows(
            table=read.table.take(pa.array(keep, type=pa.int64())),
            rows=[rows[number] for number in keep],
            errors={new: errors[number] for new, number in enumerate(keep) if number in errors},
            positions=[positions[number] for number in keep],
            left_out=left_out,
        )


class _Sample:
    """An exact number of rows, each as likely as any other, told one by one without a list of them."""

    def __init__(self, num_rows: int, sample: float, seed: int) -> None:
        self._size = min(num_rows, sample if isinstance(sample, int) else round(sample * num_rows))
        self._places = Permutation(num_rows, seed, "sample")

    def has(self, positions: Array) -> Array:
        """bool [num_positions]"""
        return np.asarray(self._places(positions) < self._size)


def _keeps(where: Where, row: Row, number: int, errors: dict[int, RowError]) -> bool:
    """A row on which the expression cannot be evaluated stays, with the reason: nothing is lost silently."""
    if number in errors:
        return True
    try:
        return where.matches(row)
    except RowError as error:
        errors[number] = error
        return True
