"""words: words with a tag each, for token classification. Knows which tokens of a word are labelled; `labels` knows
names.

As in the Hugging Face course (https://huggingface.co/learn/llm-course/chapter7/2) a word's first token gets its tag; a
window that begins inside a word has no such token of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hfray.errors import RowError, SpecError
from hfray.tasks.features.base import IGNORED, Features
from hfray.tasks.features.labels import ClassIndex, LabelOptions, final_label_type, raw_label_type
from hfray.tasks.text import Tokens
from hfray.tasks.token_classification import words_encoder, words_of
from hfray.types import Array, Column, Examples, Ragged, Row

if TYPE_CHECKING:
    import pyarrow as pa

_Tags = list[int | str]


class Words(Features):
    name: ClassVar[str] = "words"
    summary: ClassVar[str] = "words with a tag each, for token classification"
    columns: ClassVar[tuple[str, ...]] = ("text", "tags")

    class Options(LabelOptions):
        name: Literal["words"] = "words"
        label_all_pieces: bool = False
        """Whether the further tokens of a word get its tag too ("B-" becomes "I-" where there is such a label), and not
        only the first one. Tags that are names need `labels` for this."""
        stride: int = Field(default=0, ge=0)
        """Tokens that neighbouring windows of a row longer than `max_length` share; 0 cuts such a row off instead."""

    def __init__(
        self, options: Any, tokenizer: Any, max_length: int | None, present: Mapping[str, pa.DataType]
    ) -> None:
        super().__init__(options, tokenizer, max_length, present)
        for column in self.columns:
            if getattr(present[column], "value_type", None) is None:
                raise SpecError(f"mode words: column {column!r} is {present[column]}, not a list")
        names = None if options.labels == "auto" else tuple(options.labels)
        self._classes = ClassIndex(names, present["tags"].value_type, "a tag in column 'tags'")
        if options.label_all_pieces and self._classes.open:
            raise SpecError(
                "mode words with label_all_pieces needs labels: whether a name has its I- depends on all names"
            )
        # A dense table from tag to the tag of a word's further tokens, where they get one.
        self._inner = None if names is None else np.array([_inside(name, names) for name in names], np.int32)
        self._encoder = words_encoder(tokenizer, max_length, options.stride, "mode words: stride")
        if not self._encoder.has_offsets:
            raise SpecError(
                "mode words needs a fast tokenizer (tokenizer.json): others do not say whose word a token is"
            )

    def encode(self, rows: Sequence[Row]) -> Examples:
        errors: dict[int, RowError] = {}
        words: dict[int, list[str]] = {}
        tags: dict[int, _Tags] = {}
        for index, row in enumerate(rows):
            try:
                words[index], tags[index] = self._source(row)
            except RowError as error:
                errors[index] = error
        made: list[int] = []
        ids: list[Array] = []
        labels: list[Any] = []
        truncated: list[int] = []
        for index, tokens in zip(words, self._encoder.encode(list(words.values())), strict=True):
            if isinstance(tokens, RowError) or not (_array(tokens.sequence_ids) >= 0).any():
                errors[index] = (
                    tokens if isinstance(tokens, RowError) else RowError("text has no tokens", type="EmptyText")
                )
                continue
            windows = (tokens, *tokens.windows)
            made += [index] * len(windows)
            ids += [window.ids for window in windows]
            labels += self._labels(windows, tags[index])
            if tokens.truncated or len(words[index]) < len(rows[index]["text"]):
                truncated.append(index)
        columns: dict[str, Column] = {"input_ids": Ragged.of(ids)}
        columns["labels"] = labels if self._classes.open else Ragged.of(labels)
        return Examples(np.array(made, np.int64), columns, errors, tuple(truncated))

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        raw = raw_label_type("tags")
        labels = raw if self._classes.open else final_label_type(raw)
        return pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", labels)])

    @property
    def label_names(self) -> tuple[str, ...] | None:
        return self._classes.names

    def _source(self, row: Row) -> tuple[list[str], _Tags]:
        """Raises RowError: MissingColumn, NullText, WrongType, EmptyText, TagsMismatch, those of words and tags."""
        values = []
        for column, missing in (("text", "NullText"), ("tags", "NullLabel")):
            if column not in row:
                raise RowError(f"column {column!r} is missing", type="MissingColumn")
            value = row[column]
            if value is None:
                raise RowError(f"{column} is null", type=missing)
            if not isinstance(value, list | tuple | np.ndarray):
                raise RowError(
                    f"{column} is {type(value).__name__}, not a list with one entry per word", type="WrongType"
                )
            values.append(list(value))
        words, tags = values
        if not words:
            raise RowError("text has no words", type="EmptyText")
        if len(words) != len(tags):
            raise RowError(f"text has {len(words)} words and tags {len(tags)} tags", type="TagsMismatch")
        checked = words_of(words, self.options)
        return checked, [self._classes.of(tag, f"tags[{index}]") for index, tag in enumerate(tags)]

    def _labels(self, windows: Sequence[Tokens], tags: _Tags) -> list[Any]:
        """The labels of each window's tokens: int32, or names and None while names are open."""
        contents = [np.flatnonzero(_array(window.sequence_ids) >= 0) for window in windows]
        # Windows advance by a fixed step, so the token before a window's first one is in the window before it.
        step = len(contents[0]) - self.options.stride
        labels: list[Any] = []
        before = -1
        for window, content in zip(windows, contents, strict=True):
            words = _array(window.word_ids)[content]
            is_first = words != np.concatenate([[before], words[:-1]])
            before = int(words[step - 1]) if 0 < step <= len(words) else -1
            labels.append(self._of_tokens(len(window.ids), content, words, is_first, tags))
        return labels

    def _of_tokens(self, num_tokens: int, content: Array, words: Array, is_first: Array, tags: _Tags) -> Any:
        """content: places of the tokens that belong to words; words, is_first: whose, and whether its first one."""
        if self._classes.open:
            names: list[int | str | None] = [None] * num_tokens
            for place, word in zip(content[is_first].tolist(), words[is_first].tolist(), strict=True):
                names[place] = tags[word]
            return names
        labels = np.full(num_tokens, IGNORED, np.int32)
        of_words = np.array(tags, np.int32)
        if self.options.label_all_pieces:
            inner = of_words if self._inner is None else self._inner[of_words]
            labels[content] = np.where(is_first, of_words[words], inner[words])
        else:
            labels[content[is_first]] = of_words[words[is_first]]
        return labels


def _inside(name: str, names: tuple[str, ...]) -> int:
    """The index of the name for a word's further tokens."""
    inner = f"I-{name.removeprefix('B-')}" if name.startswith("B-") else name
    return names.index(inner if inner in names else name)


def _array(values: Array | None) -> Array:
    if values is None:
        raise ValueError("the encoder gives no offsets")
    return values
