"""Checks of text columns, and batched tokenising that survives any row. Knows tokenizers; not models.

The tokenizer is cloned with its truncation fixed, so that two threads can encode at once; where offsets are not
needed the faster `encode_batch_fast` is used. A batch that raises, or panics (tokenizers is Rust: a panic is a
BaseException), is halved until the guilty text stands alone. `tasks.flat` makes ids alone of many texts.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal, TypeVar

import numpy as np

from hfray.errors import RowError
from hfray.tasks.base import TaskOptions
from hfray.types import Array, Row

_T = TypeVar("_T")


class CutText(str):
    """A text that lost its end to `max_chars`. With a prefix before it, it is one still."""

    __slots__ = ()

    def __radd__(self, prefix: str) -> CutText:
        return CutText(f"{prefix}{self}")


def any_cut(texts: Iterable[str]) -> bool:
    """Whether one of the texts lost its end to `max_chars`."""
    return CutText in map(type, texts)


def text_of(row: Row, column: str, options: TaskOptions) -> str:
    """The text in a column, checked; a CutText where `max_chars` cut it. Raises RowError: MissingColumn, NullText,
    WrongType, InvalidText, EmptyText, TextTooLong."""
    if column not in row:
        raise RowError(f"column {column!r} is missing", type="MissingColumn")
    return check_text(row[column], column, options)


def texts_of(row: Row, column: str, options: TaskOptions) -> list[str]:
    """The texts in a column that holds one text or a list of them, each checked. Raises RowError: as `text_of`, and
    NoTexts for an empty list."""
    value = row.get(column)
    if not isinstance(value, list | tuple):
        return [text_of(row, column, options)]
    if not value:
        raise RowError(f"{column} is an empty list", type="NoTexts")
    return [check_text(each, f"{column}[{index}]", options) for index, each in enumerate(value)]


def check_text(value: Any, what: str, options: TaskOptions, *, allow_empty: bool = False) -> str:
    """`value` if it is text a tokenizer can take, a CutText if it was cut to that; `what` names it in the error."""
    if value is None:
        raise RowError(f"{what} is null", type="NullText")
    if isinstance(value, bytes):
        raise RowError(f"{what} holds {len(value):,} bytes, not text", type="WrongType")
    if not isinstance(value, str):
        raise RowError(f"{what} is {type(value).__name__}, not text", type="WrongType")
    if len(value) > options.max_chars:
        if options.over_max_chars == "error":
            raise RowError(
                f"{what} has {len(value):,} characters, over max_chars {options.max_chars:,}", type="TextTooLong"
            )
        value = CutText(value[: options.max_chars])
    if "\x00" in value:
        raise RowError(f"{what} contains a NUL character", type="InvalidText")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowError(f"{what} contains a lone surrogate at character {error.start}", type="InvalidText") from None
    text: str = value
    if not allow_empty and not text.strip():
        raise RowError(f"{what} is empty", type="EmptyText")
    return text


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenised text or pair, special tokens included, unpadded.

    offsets: int64 [num_tokens, 2], characters in the text the token comes from; sequence_ids: int64 [num_tokens],
    0 or 1 for first or second text, -1 for special tokens; word_ids: int64 [num_tokens], -1 for special tokens.
    All three are None unless asked for (and never there for a tokenizer without a Rust backend).
    windows: with a stride, the further windows of an overflowing text.
    truncated: whether part of the text is in none of the windows, or `max_chars` cut it before.
    """

    ids: Array
    type_ids: Array
    offsets: Array | None = None
    sequence_ids: Array | None = None
    word_ids: Array | None = None
    windows: tuple[Tokens, ...] = ()
    truncated: bool = False


class TextEncoder:
    """Tokenises batches under one fixed truncation. Thread-safe."""

    def __init__(
        self,
        tokenizer: Any,
        max_length: int | None,
        *,
        truncation: Literal["longest_first", "only_first", "only_second"] = "longest_first",
        stride: int = 0,
        offsets: bool = False,
        add_special_tokens: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._truncation = truncation
        self._stride = stride
        # With a stride, what one window cannot hold is in the next.
        self._full_length = math.inf if max_length is None or stride else max_length
        self._offsets = offsets
        self._special = add_special_tokens
        self._lock = threading.Lock()
        self._uses_type_ids = "token_type_ids" in tokenizer.model_input_names
        self._backend = None
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            self._backend = type(backend).from_str(backend.to_str())
            self._backend.no_padding()
            if max_length is None:
                self._backend.no_truncation()
            else:
                self._backend.enable_truncation(max_length, stride=stride, strategy=truncation)

    @property
    def has_offsets(self) -> bool:
        return self._offsets and self._backend is not None

    def encode(self, texts: Sequence[Any], pairs: Sequence[str] | None = None) -> list[Tokens | RowError]:
        """One entry per text, in order. `texts` may hold lists of words (pre-split) if all of them do."""
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        encoded = surviving(inputs, self._encode_batch)
        # Texts are many and seldom cut: one look at all of them comes before one at each.
        if any_cut(texts) or any_cut(pairs or ()) or list in map(type, texts):
            for index, each in enumerate(encoded):
                if isinstance(each, Tokens) and is_cut(inputs[index]):
                    encoded[index] = replace(each, truncated=True)
        return encoded

    def model_inputs(self, tokens: Tokens) -> dict[str, Array]:
        """The item inputs of a text: `input_ids`, and `token_type_ids` where the model takes them."""
        inputs = {"input_ids": tokens.ids}
        if self._uses_type_ids:
            inputs["token_type_ids"] = tokens.type_ids
        return inputs

    def _encode_batch(self, inputs: list[Any]) -> list[Tokens]:
        if self._backend is None:
            return [self._encode_slow(each) for each in inputs]
        return [self._tokens(encoding) for encoding in self._encodings(inputs, offsets=self._offsets)]

    def _encodings(self, inputs: list[Any], *, offsets: bool = False) -> list[Any]:
        """What the backend makes of the inputs; without one, the same of what `FlatEncoder` reads."""
        if self._backend is None:
            return [
                SimpleNamespace(
                    ids=each.ids.tolist(), type_ids=each.type_ids.tolist(), overflowing=[None] * each.truncated
                )
                for each in map(self._encode_slow, inputs)
            ]
        first = inputs[0][0] if isinstance(inputs[0], tuple) else inputs[0]
        encode = self._backend.encode_batch if offsets else self._backend.encode_batch_fast
        encodings: list[Any] = encode(inputs, is_pretokenized=isinstance(first, list), add_special_tokens=self._special)
        return encodings

    def _tokens(self, encoding: Any) -> Tokens:
        ids = np.array(encoding.ids, dtype=np.int64)
        type_ids = np.array(encoding.type_ids, dtype=np.int64)
        # What overflows is copied to be looked at, so only where something can have.
        truncated = len(ids) >= self._full_length and len(encoding.overflowing) > 0
        if not self._offsets:
            return Tokens(ids, type_ids, truncated=truncated)
        return Tokens(
            ids,
            type_ids,
            offsets=np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2),
            sequence_ids=_with_minus_one(encoding.sequence_ids),
            word_ids=_with_minus_one(encoding.word_ids),
            windows=tuple(self._tokens(window) for window in encoding.overflowing) if self._stride else (),
            truncated=truncated,
        )

    def _encode_slow(self, text: Any) -> Tokens:
        pair = isinstance(text, tuple)
        first, second = text if pair else (text, None)
        settings = {
            "add_special_tokens": self._special,
            "is_split_into_words": isinstance(first, list),
            "return_token_type_ids": True,
            "verbose": False,
        }
        truncation = self._truncation if self._max_length is not None else False
        with self._lock:
            encoded = self._tokenizer(first, second, truncation=truncation, max_length=self._max_length, **settings)
            ids = np.array(encoded["input_ids"], dtype=np.int64)
            truncated = False
            if len(ids) >= self._full_length:  # such a tokenizer does not say of every pair whether it was cut
                truncated = len(self._tokenizer(first, second, **settings)["input_ids"]) > len(ids)
        type_ids = np.array(encoded.get("token_type_ids", np.zeros_like(ids)), dtype=np.int64)
        return Tokens(ids, type_ids, truncated=truncated)


def surviving(inputs: list[Any], encode_batch: Callable[[list[Any]], list[_T]]) -> list[_T | RowError]:
    """What `encode_batch` makes of the inputs; of one that makes it raise, or panic, a RowError TokenizerFailure."""
    if not inputs:
        return []
    try:
        return list(encode_batch(inputs))
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a Rust panic is not an Exception
        if len(inputs) == 1:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return [RowError(f"the tokenizer failed: {reason[:300]}", type="TokenizerFailure")]
        middle = len(inputs) // 2
        return surviving(inputs[:middle], encode_batch) + surviving(inputs[middle:], encode_batch)


def is_cut(text: Any) -> bool:
    """Whether `max_chars` cut a text, one of a pair, or one of a list of words."""
    return any_cut(text) if isinstance(text, tuple | list) else isinstance(text, CutText)


def _with_minus_one(values: Sequence[int | None]) -> Array:
    return np.array([-1 if value is None else value for value in values], dtype=np.int64)


def appends_eos(tokenizer: Any) -> bool:
    """Whether the tokenizer ends each text in its end-of-sequence token by itself."""
    with_special, bare = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    return len(with_special) > len(bare) and bool(with_special[-1] == tokenizer.eos_token_id)


def effective_max_length(options: TaskOptions, model_limit: int | None) -> int | None:
    """The job's max_length under the model's limit."""
    if options.max_length is None:
        return model_limit
    return options.max_length if model_limit is None else min(options.max_length, model_limit)
