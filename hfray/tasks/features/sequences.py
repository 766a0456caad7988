"""Tokenised rows as columns: one sequence of ids per row, padded or not, with its label. Knows flat tokens and padding;
not columns of text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hfray.errors import RowError, SpecError
from hfray.tasks.features.labels import TextLabelOptions, TextLabels
from hfray.tasks.flat import FlatTokens
from hfray.types import Array, Column, Examples, Ragged, Row

if TYPE_CHECKING:
    import pyarrow as pa


class SequenceOptions(TextLabelOptions):
    """Options of the modes that make one sequence of each row."""

    padding: Literal["none", "max_length"] = "none"
    """`max_length` fills every example up to that length and adds `attention_mask`; without, batches are padded when
    they are trained on, each to its longest example."""


class Sequences:
    """Makes the columns of one mode's examples."""

    def __init__(
        self,
        options: SequenceOptions,
        tokenizer: Any,
        max_length: int | None,
        present: Mapping[str, pa.DataType],
        *,
        token_types: bool = False,
    ) -> None:
        """token_types: whether the model tells the parts of a sequence by them. Raises SpecError."""
        self._labels = TextLabels(options, present["label"]) if "label" in present else None
        self._token_types = token_types
        self._length: int | None = None
        if options.padding == "max_length":
            if max_length is None:
                raise SpecError(f"mode {options.name} with padding: max_length needs max_length")
            if tokenizer.pad_token_id is None:
                raise SpecError(f"mode {options.name}: the tokenizer has no padding token; use padding: none")
            self._length = max_length
            self._left = tokenizer.padding_side == "left"
            self._pad_id = int(tokenizer.pad_token_id)
            self._pad_type_id = int(tokenizer.pad_token_type_id)

    @property
    def label_names(self) -> tuple[str, ...] | None:
        return None if self._labels is None else self._labels.names

    def label(self, row: Row) -> Any:
        """The row's label, checked; None where the input has no labels. Raises RowError."""
        return None if self._labels is None else self._labels.of(row)

    def examples(
        self, numbers: Sequence[int], tokens: FlatTokens, labels: Sequence[Any], errors: dict[int, RowError]
    ) -> Examples:
        """numbers: of the row that each of the tokens, and of the labels, is of; errors: of the other rows."""
        for place, error in tokens.errors.items():
            errors[numbers[place]] = error
        lengths = tokens.ids.lengths
        for place in np.flatnonzero(lengths == 0).tolist():
            errors.setdefault(numbers[place], RowError("text has no tokens", type="EmptyText"))
        made = np.flatnonzero(lengths)
        offsets = np.zeros(len(made) + 1, np.int64)
        np.cumsum(lengths[made], out=offsets[1:])  # a row without tokens has no values, so these need no change
        columns: dict[str, Column] = {"input_ids": Ragged(tokens.ids.values, offsets)}
        if self._token_types:
            types = np.zeros_like(tokens.ids.values) if tokens.type_ids is None else tokens.type_ids.values
            columns["token_type_ids"] = Ragged(types, offsets)
        if self._length is not None:
            columns = self._padded(columns, offsets)
        if self._labels is not None:
            columns["labels"] = self._labels.column([labels[place] for place in made.tolist()])
        rows = np.asarray(numbers, np.int64)[made]
        return Examples(rows, columns, errors, tuple(rows[tokens.truncated[made]].tolist()))

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        names = ["input_ids"]
        names += ["token_type_ids"] if self._token_types else []
        names += ["attention_mask"] if self._length is not None else []
        fields = [(name, pa.list_(pa.int32())) for name in names]
        if self._labels is not None:
            fields.append(("labels", self._labels.type()))
        return pa.schema(fields)

    def _padded(self, columns: Mapping[str, Column], offsets: Array) -> dict[str, Column]:
        length = self._length or 0
        lengths = np.diff(offsets)
        counted = np.arange(length)
        kept = counted >= length - lengths[:, None] if self._left else counted < lengths[:, None]
        filled = {"input_ids": self._pad_id, "token_type_ids": self._pad_type_id}
        padded: dict[str, Column] = {}
        regular = np.arange(len(lengths) + 1, dtype=np.int64) * length
        for name, column in columns.items():
            if isinstance(column, Ragged):
                values = np.full(kept.shape, filled[name], np.int32)
                values[kept] = column.values
                padded[name] = Ragged(values.reshape(-1), regular)
        padded["attention_mask"] = Ragged(kept.astype(np.int32).reshape(-1), regular)
        return padded
