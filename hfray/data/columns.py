"""The `columns` of a job, `new: source`: input columns under the names that the task and the output want.

Knows names; not tasks, not values.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import pyarrow as pa

from hfray.data.base import ShardRows
from hfray.errors import SpecError
from hfray.spec.sections import RESERVED_COLUMNS


class Columns:
    """A renaming, checked once against the columns of the input. A renamed column keeps its place; others stay."""

    def __init__(self, mapping: Mapping[str, str], schema: pa.Schema, payload: Sequence[str] = ()) -> None:
        """mapping: new name -> source column; payload: columns that a task sees but the output does not keep.

        Raises SpecError for a source that is not there, one that is used twice, a name that would be there twice,
        and an input column called `result` or `error`.
        """
        sources = [*schema.names, *payload]
        new_names: dict[str, str] = {}
        for new, source in mapping.items():
            if source not in sources:
                raise SpecError(f"columns.{new}: the input has no column {source!r}: {_known(source, sources)}")
            if source in new_names:
                raise SpecError(f"columns: both {new_names[source]!r} and {new!r} are made from {source!r}: keep one")
            new_names[source] = new
        self._names = [new_names.get(name, name) for name in schema.names]
        self._payload = {name: new_names.get(name, name) for name in payload}
        taken: dict[str, str] = {}
        for source, name in zip(sources, [*self._names, *self._payload.values()], strict=True):
            if name in taken:
                raise SpecError(
                    f"columns: {taken[name]!r} and {source!r} would both be called {name!r}: "
                    "give the other one another name"
                )
            taken[name] = source
        for name in RESERVED_COLUMNS:
            if name in self._names:
                raise SpecError(
                    f"input: there is a column {name!r}, which hfray writes itself: "
                    f"rename it with `columns: {{input_{name}: {taken[name]}}}`"
                )
        self._renamed = new_names
        self.schema: pa.Schema = pa.schema(
            [field.with_name(name) for field, name in zip(schema, self._names, strict=True)]
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that a task or `where` can use."""
        return (*self._names, *self._payload.values())

    def require(self, names: Sequence[str], what: str) -> None:
        """Raises SpecError if one of the names is not a column; `what` says who wants it ("task", "where")."""
        for name in names:
            if name not in self.names:
                raise SpecError(
                    f"{what}: there is no column {name!r}: {_known(name, self.names)} "
                    f"(`columns: {{{name}: <input column>}}` gives one that name)"
                )

    def apply(self, rows: ShardRows) -> ShardRows:
        """The rows of a shard under the new names."""
        return rows.rename(self._names, self._renamed)


def _known(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "") if names else "none"
    return (f"did you mean {close[0]!r}? " if close else "") + f"it has {shown}"
