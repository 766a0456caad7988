"""pair: two texts per row in one sequence, with a label or without. Knows the columns `text` and `text_pair`; not
labels, not padding.
"""

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


class Pair(Features):
    name: ClassVar[str] = "pair"
    summary: ClassVar[str] = "two texts per row in one sequence, with or without a label"
    columns: ClassVar[tuple[str, ...]] = ("text", "text_pair")
    optional_columns: ClassVar[tuple[str, ...]] = ("label",)

    class Options(SequenceOptions):
        name: Literal["pair"] = "pair"
        truncation: Literal["longest_first", "only_first", "only_second"] = "longest_first"
        """Which text loses its end where both are over `max_length`; with one of the last two, a row fails whose other
        text leaves no room."""

    def __init__(
        self, options: Any, tokenizer: Any, max_length: int | None, present: Mapping[str, pa.DataType]
    ) -> None:
        super().__init__(options, tokenizer, max_length, present)
        token_types = "token_type_ids" in tokenizer.model_input_names
        self._sequences = Sequences(options, tokenizer, max_length, present, token_types=token_types)
        self._encoder = FlatEncoder(tokenizer, max_length, truncation=options.truncation)

    def encode(self, rows: Sequence[Row]) -> Examples:
        errors: dict[int, RowError] = {}
        pairs: dict[int, tuple[str, str]] = {}
        labels: list[Any] = []
        for index, row in enumerate(rows):
            try:
                pair = text_of(row, "text", self.options), text_of(row, "text_pair", self.options)
                labels.append(self._sequences.label(row))
                pairs[index] = pair
            except RowError as error:
                errors[index] = error
        firsts, seconds = ([pair[place] for pair in pairs.values()] for place in (0, 1))
        tokens = self._encoder.encode_flat(firsts, seconds)
        return self._sequences.examples(list(pairs), tokens, labels, errors)

    def schema(self) -> pa.Schema:
        return self._sequences.schema()

    @property
    def label_names(self) -> tuple[str, ...] | None:
        return self._sequences.label_names
