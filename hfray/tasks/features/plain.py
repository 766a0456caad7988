"""plain: one text per row, with a label or without. Knows the column `text`; not labels, not padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hfray.errors import RowError
from hfray.tasks.features.base import Features
from hfray.tasks.features.sequences import SequenceOptions, Sequences
from hfray.tasks.flat import FlatEncoder
from hfray.tasks.text import text_of
from hfray.types import Examples, Row

if TYPE_CHECKING:
    import pyarrow as pa


class Plain(Features):
    name: ClassVar[str] = "plain"
    summary: ClassVar[str] = "one text per row, with or without a label"
    columns: ClassVar[tuple[str, ...]] = ("text",)
    optional_columns: ClassVar[tuple[str, ...]] = ("label",)

    class Options(SequenceOptions):
        name: Literal["plain"] = "plain"

    def __init__(
        self, options: Any, tokenizer: Any, max_length: int | None, present: Mapping[str, pa.DataType]
    ) -> None:
        super().__init__(options, tokenizer, max_length, present)
        self._sequences = Sequences(options, tokenizer, max_length, present)
        self._encoder = FlatEncoder(tokenizer, max_length)

    def encode(self, rows: Sequence[Row]) -> Examples:
        errors: dict[int, RowError] = {}
        texts: dict[int, str] = {}
        labels: list[Any] = []
        for index, row in enumerate(rows):
            try:
                text = text_of(row, "text", self.options)
                labels.append(self._sequences.label(row))
                texts[index] = text
            except RowError as error:
                errors[index] = error
        tokens = self._encoder.encode_flat(list(texts.values()))
        return self._sequences.examples(list(texts), tokens, labels, errors)

    def schema(self) -> pa.Schema:
        return self._sequences.schema()

    @property
    def label_names(self) -> tuple[str, ...] | None:
        return self._sequences.label_names
