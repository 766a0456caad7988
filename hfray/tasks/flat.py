"""The fast way from texts to ids alone: many in one array, single texts word by word from memory where that is proved
to be the same. Knows tokenizers; not rows, not offsets.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from hfray.errors import RowError
from hfray.tasks.cuts import NoProofError, special_tokens
from hfray.tasks.lexicon import Lexicon, lexicon_of
from hfray.tasks.text import TextEncoder, any_cut, is_cut, surviving
from hfray.types import Array, Ragged

_CHUNK = 64
"""Texts whose `Encoding`s are kept at once; measured from 16 to 512: fewer stay in the caches."""

_ID_BYTES = 4
_Made = tuple[bytes, bytes, bool]
"""Of one text: ids and token types, int32, and whether the limit cut it."""


@dataclass(frozen=True, slots=True)
class FlatTokens:
    """Many tokenised texts or pairs in one array, special tokens included, unpadded; one list per text, in order.

    ids: int32; the list of a text that failed is empty.
    type_ids: int32, as long as `ids`; only for pairs, and only where the model takes token types.
    truncated: bool [num_texts], whether the limit, or `max_chars` before it, cut the text.
    errors: the number of each text that failed, and why.
    """

    ids: Ragged
    type_ids: Ragged | None
    truncated: Array
    errors: dict[int, RowError]


class FlatEncoder(TextEncoder):
    """Tokenises batches under one fixed truncation. Thread-safe."""

    def __init__(
        self,
        tokenizer: Any,
        max_length: int | None,
        *,
        truncation: Literal["longest_first", "only_first", "only_second"] = "longest_first",
        add_special_tokens: bool = True,
    ) -> None:
        super().__init__(tokenizer, max_length, truncation=truncation, add_special_tokens=add_special_tokens)

    def encode_flat(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> FlatTokens:
        """One list of ids per text, in order; no object of a text outlives its chunk."""
        inputs: list[Any] = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        ids, type_ids, offsets = bytearray(), bytearray(), np.zeros(len(inputs) + 1, np.int64)
        truncated = np.zeros(len(inputs), bool)
        errors: dict[int, RowError] = {}
        for start in range(0, len(inputs), _CHUNK):
            made = self._made(inputs[start : start + _CHUNK], paired=pairs is not None)
            for index, each in enumerate(made, start):
                if isinstance(each, RowError):
                    errors[index] = each
                else:
                    ids += each[0]
                    type_ids += each[1]
                    truncated[index] = each[2]
                offsets[index + 1] = len(ids) // _ID_BYTES
        if any_cut(texts) or any_cut(pairs or ()):
            truncated |= [index not in errors and is_cut(each) for index, each in enumerate(inputs)]
        types = None
        if pairs is not None and self._uses_type_ids:
            types = Ragged(np.frombuffer(type_ids, np.int32), offsets)
        return FlatTokens(Ragged(np.frombuffer(ids, np.int32), offsets), types, truncated, errors)

    def _made(self, inputs: list[Any], *, paired: bool) -> Iterator[_Made | RowError]:
        known = [None if paired else self._from_memory(each) for each in inputs]
        rest = [each for each, made in zip(inputs, known, strict=True) if made is None]
        encodings = iter(surviving(rest, self._encodings))
        for made in known:
            if made is not None:
                yield made
                continue
            encoding = next(encodings)
            if isinstance(encoding, RowError):
                yield encoding
                continue
            ids = encoding.ids
            # What overflows is copied to be looked at, so only where something can have.
            truncated = len(ids) >= self._full_length and len(encoding.overflowing) > 0
            type_ids = array("i", encoding.type_ids).tobytes() if paired and self._uses_type_ids else b""
            yield array("i", ids).tobytes(), type_ids, truncated

    def _from_memory(self, text: str) -> _Made | None:
        if self._memory is None:
            return None
        lexicon, first, last, room_bytes = self._memory
        ids = lexicon.ids(text)
        if ids is None:
            return None
        return first + ids[:room_bytes] + last, b"", room_bytes is not None and len(ids) > room_bytes

    @property
    def lexicon(self) -> Lexicon | None:
        """The words of the tokenizer; None where nothing is proved of it."""
        return None if self._memory is None else self._memory[0]

    @cached_property
    def _memory(self) -> tuple[Lexicon, bytes, bytes, int | None] | None:
        """The words, what stands before and after a text, and the room between; None where nothing is proved."""
        if self._backend is None:
            return None
        backend = type(self._backend).from_str(self._backend.to_str())
        backend.no_truncation()
        lexicon = lexicon_of(backend)
        if lexicon is None:
            return None
        try:
            first, last = (ids.tobytes() for ids in special_tokens(backend)) if self._special else (b"", b"")
        except NoProofError:
            return None
        if self._max_length is None:
            return lexicon, first, last, None
        room_bytes = _ID_BYTES * self._max_length - len(first) - len(last)
        return (lexicon, first, last, room_bytes) if room_bytes > 0 else None
