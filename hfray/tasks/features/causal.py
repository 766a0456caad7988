"""packed: documents for a decoder-only model, packed into sequences of one length.

Knows where a document ends (`eos`) and how one too long for a single call is tokenised; the rest is `packing` and
`pieces`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from hfray.errors import RowError, SpecError
from hfray.tasks.features.base import FeatureOptions, Features
from hfray.tasks.features.packing import Packer
from hfray.tasks.features.pieces import Pieces
from hfray.tasks.flat import FlatEncoder
from hfray.tasks.text import CutText, appends_eos, text_of
from hfray.types import Array, Examples, Ragged, Row

if TYPE_CHECKING:
    import pyarrow as pa

CALL_CHARS = 4_000_000
"""Most characters of the texts given to the tokenizer at once, which takes about 100 bytes for each."""


class Packed(Features):
    name: ClassVar[str] = "packed"
    summary: ClassVar[str] = "documents packed into full sequences, for a causal language model"
    columns: ClassVar[tuple[str, ...]] = ("text",)

    class Options(FeatureOptions):
        name: Literal["packed"] = "packed"
        strategy: Literal["best_fit", "concatenate"] = "best_fit"
        """How documents become sequences of `max_length` tokens: `best_fit` cuts only those that are longer and fills
        the gaps with the others; `concatenate` puts one after another and cuts every `max_length` tokens."""
        append_eos: bool = True
        """Whether each document ends in the tokenizer's end-of-sequence token."""
        over_max_chars: Literal["error", "truncate", "split"] = "split"  # type: ignore[assignment]  # one more choice
        """What happens to a longer text: its row fails, the text is cut, or it is tokenised in pieces of at most
        `max_chars`, with the same tokens as the whole (a row whose text that cannot be promised of fails)."""

    def __init__(
        self, options: Any, tokenizer: Any, max_length: int | None, present: Mapping[str, pa.DataType]
    ) -> None:
        super().__init__(options, tokenizer, max_length, present)
        if max_length is None:
            raise SpecError("mode packed needs max_length: the number of tokens of each packed sequence")
        self._end = np.array([tokenizer.eos_token_id] if must_append_eos(tokenizer, options) else [], np.int32)
        self._packer = Packer(options.strategy, max_length, pad_id(tokenizer))
        self._encoder = FlatEncoder(tokenizer, None)
        self._check = options.model_copy(update={"max_chars": sys.maxsize}) if self._splits else options

    def encode(self, rows: Sequence[Row]) -> Examples:
        """One example per document, `input_ids` of any length."""
        errors: dict[int, RowError] = {}
        texts: dict[int, str] = {}
        for index, row in enumerate(rows):
            try:
                texts[index] = text_of(row, "text", self._check)
            except RowError as error:
                errors[index] = error
        documents: dict[int, Array] = {}
        for index, ids in self._tokenised(texts, errors):
            documents[index] = np.concatenate([ids, self._end])
        made = sorted(documents)
        return Examples(
            rows=np.array(made, np.int64),
            columns={"input_ids": Ragged.of([documents[index] for index in made])},
            errors=errors,
            truncated=tuple(index for index in made if isinstance(texts[index], CutText)),
        )

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([("input_ids", pa.list_(pa.int32()))])

    @property
    def packs(self) -> bool:
        return True

    def pack(self, columns: Mapping[str, Any]) -> dict[str, Ragged]:
        """The documents of `encode`'s columns as sequences of `max_length` tokens: the columns of `packed_schema`."""
        return self._packer.pack(columns)

    def packed_schema(self) -> pa.Schema:
        return self._packer.schema()

    @property
    def _splits(self) -> bool:
        return bool(self.options.over_max_chars == "split")

    @cached_property
    def _pieces(self) -> Pieces:
        # Reads the whole tokenizer once more, and few inputs hold a text so long.
        return Pieces(self.tokenizer, self._encoder.lexicon)

    def _tokenised(self, texts: Mapping[int, str], errors: dict[int, RowError]) -> Iterator[tuple[int, Array]]:
        """The ids of each text that has some; of the others, why not, in `errors`."""
        together: dict[int, str] = {}
        num_chars = 0
        for index, text in texts.items():
            if self._splits and len(text) > self.options.max_chars:
                try:
                    yield index, self._pieces.encode(text, self.options.max_chars)
                except RowError as error:
                    errors[index] = error
                continue
            if num_chars + len(text) > CALL_CHARS:
                yield from self._in_one_call(together, errors)
                together, num_chars = {}, 0
            together[index] = text
            num_chars += len(text)
        yield from self._in_one_call(together, errors)

    def _in_one_call(self, texts: Mapping[int, str], errors: dict[int, RowError]) -> Iterator[tuple[int, Array]]:
        tokens = self._encoder.encode_flat(list(texts.values()))
        for place, index in enumerate(texts):
            if place in tokens.errors:
                errors[index] = tokens.errors[place]
            elif not len(tokens.ids[place]):
                errors[index] = RowError("text has no tokens", type="EmptyText")
            else:
                yield index, tokens.ids[place]


def must_append_eos(tokenizer: Any, options: Any) -> bool:
    """Whether `eos` is wanted (`append_eos`, where the options have it) and the tokenizer does not add it by itself.

    Raises SpecError: it is wanted and the tokenizer has none.
    """
    if not getattr(options, "append_eos", True):
        return False
    if tokenizer.eos_token_id is None:
        raise SpecError(
            f"mode {options.name}: the tokenizer has no end-of-sequence token, so nothing tells where a text ends; "
            "choose a tokenizer that has one" + (", or append_eos: false" if hasattr(options, "append_eos") else "")
        )
    return not appends_eos(tokenizer)


def pad_id(tokenizer: Any) -> int:
    """What fills a sequence up; no loss is taken of it, so where there is no such token any other does."""
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return int(next(each for each in ids if each is not None))
