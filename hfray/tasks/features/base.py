"""The contract of training features: rows to token columns. Knows text, labels, tokenizers and numpy; no files, no Ray.

A mode is one file with a subclass of `Features` and one line in `hfray.tasks.features.MODES`; the tokenize job, its
help and schema, and training read that class. A task names the mode that makes its features (`Task.training_mode`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from hfray.types import Column, Examples, Row, Strict

if TYPE_CHECKING:
    import pyarrow as pa

IGNORED = -100
"""The label of a token that no loss is taken of (torch's `ignore_index`)."""


class FeatureOptions(Strict):
    """Options that every mode has; a mode's own `Options` adds to them and narrows `name` to a literal."""

    name: str
    """Which mode."""
    max_chars: int = Field(default=1_000_000, ge=1)
    """Most characters of one text, checked before tokenising."""
    over_max_chars: Literal["error", "truncate"] = "error"
    """What happens to a longer text: its row fails, or the text is cut."""


class Features(ABC):
    """Makes training examples of rows."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for the command's help."""
    columns: ClassVar[tuple[str, ...]]
    """Columns that a row must have."""
    optional_columns: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[FeatureOptions]]

    def __init__(
        self, options: Any, tokenizer: Any, max_length: int | None, present: Mapping[str, pa.DataType]
    ) -> None:
        """Checks the options against the tokenizer and the input: raises SpecError (which option, what there is).

        max_length: most tokens of one example, special tokens included; None means no limit.
        present: the input's columns with their Arrow types; all that `required_columns` names are there.
        """
        self.options = options
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.present = present

    @classmethod
    def required_columns(cls, options: Any, present: Collection[str]) -> tuple[str, ...]:
        """The columns that a row must have under these options, where the input has the columns `present`."""
        return cls.columns

    @classmethod
    def default_max_length(cls, limit: int | None) -> int | None:
        """`max_length` where the job says none. limit: what the tokenizer states."""
        return limit

    @abstractmethod
    def encode(self, rows: Sequence[Row]) -> Examples:
        """Rows to examples; never raises for a bad row, never writes into it."""

    @abstractmethod
    def schema(self) -> pa.Schema:
        """The Arrow types of the columns of `encode`'s examples, in order; fixed for a job. Token ids, labels of tokens
        and positions are int32."""

    @property
    def packs(self) -> bool:
        """Whether the examples of a whole part are put together by `pack` before they are written."""
        return False

    def pack(self, columns: Mapping[str, Column]) -> Mapping[str, Column]:
        """`encode`'s columns, of the examples of one part, as the columns of `packed_schema`."""
        return columns

    def packed_schema(self) -> pa.Schema:
        """The Arrow types of what is written."""
        return self.schema()

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The names of the classes in `labels`, by index; None where there are none, or they are not known yet.

        Not known yet: the options leave them open and the input has names, so `encode` gives names (str, or a list of
        them, null for a token without a label) in `labels`, the whole input is looked through, and the names become
        indexes of their sorted list.
        """
        return None
