"""seq2seq: a text and the text to be made of it, for an encoder-decoder model. Knows the two columns and on which side
a tokenizer is; `languages` knows how it is told them.

Labels are the ids that the tokenizer gives for the target (`text_target`), its end-of-sequence token included; the
model itself shifts them to what its decoder reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hfray.errors import RowError, SpecError
from hfray.tasks.features.base import FeatureOptions, Features
from hfray.tasks.flat import FlatEncoder, FlatTokens
from hfray.tasks.languages import (
    examples,
    known_code,
    language,
    language_codes,
    marian_codes,
    marian_prefix,
    sentence_prefix,
)
from hfray.tasks.text import text_of
from hfray.types import Array, Examples, Ragged, Row

if TYPE_CHECKING:
    import pyarrow as pa


class Seq2Seq(Features):
    name: ClassVar[str] = "seq2seq"
    summary: ClassVar[str] = "a text and the text to be made of it, for an encoder-decoder model"
    columns: ClassVar[tuple[str, ...]] = ("text", "target")

    class Options(FeatureOptions):
        name: Literal["seq2seq"] = "seq2seq"
        prefix: str | None = Field(default=None, max_length=1000)
        """Text put before every input, such as "summarize: "; default: what tells the model its languages, if any."""
        max_target_length: int | None = Field(default=None, ge=2)
        """Most tokens of a target, special tokens included; default: `max_length`."""
        source_language: str | None = Field(default=None, max_length=64)
        """In the model's words: "en_XX" (mBART), "eng_Latn" (NLLB), "en" (M2M100), "en" or "English" (T5)."""
        target_language: str | None = Field(default=None, max_length=64)
        """Likewise; for a multilingual Marian model the code in its token, such as "fra" for ">>fra<<"."""

    def __init__(
        self, options: Any, tokenizer: Any, max_length: int | None, present: Mapping[str, pa.DataType]
    ) -> None:
        """Sets the languages of a tokenizer that has some."""
        super().__init__(options, tokenizer, max_length, present)
        codes = language_codes(tokenizer)
        if codes:
            tokenizer.src_lang = _code(options, "source_language", codes)
            tokenizer.tgt_lang = _code(options, "target_language", codes)
        self._prefix = _prefix(options, tokenizer, codes) if options.prefix is None else options.prefix
        self._encoder = FlatEncoder(tokenizer, max_length)
        self._target_encoder = _target_encoder(tokenizer, options.max_target_length or max_length, codes)

    def encode(self, rows: Sequence[Row]) -> Examples:
        errors: dict[int, RowError] = {}
        texts: dict[int, tuple[str, str]] = {}
        for index, row in enumerate(rows):
            try:
                text, target = (text_of(row, column, self.options) for column in self.columns)
                texts[index] = self._prefix + text, target
            except RowError as error:
                errors[index] = error
        numbers = list(texts)
        sides = (
            self._encoder.encode_flat([text for text, _ in texts.values()]),
            self._target_encoder.encode_flat([target for _, target in texts.values()]),
        )
        for column, tokens in zip(self.columns, sides, strict=True):
            for place in np.flatnonzero(tokens.ids.lengths == 0).tolist():
                reason = tokens.errors.get(place) or RowError(f"{column} has no tokens", type="EmptyText")
                errors.setdefault(numbers[place], reason)
        kept = np.array([number not in errors for number in numbers], bool)
        truncated = sides[0].truncated | sides[1].truncated
        made = np.array(numbers, np.int64)[kept]
        columns = {name: _chosen(side, kept) for name, side in zip(("input_ids", "labels"), sides, strict=True)}
        return Examples(made, columns, errors, tuple(made[truncated[kept]].tolist()))

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([(name, pa.list_(pa.int32())) for name in ("input_ids", "labels")])


class _TargetSide:
    """A tokenizer without a backend, turned to the target."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.model_input_names = tokenizer.model_input_names

    def __call__(self, text: str, pair: None, **settings: Any) -> Any:
        return self._tokenizer(text_target=text, **settings)


def _target_encoder(tokenizer: Any, max_length: int | None, codes: Mapping[str, int]) -> FlatEncoder:
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return FlatEncoder(_TargetSide(tokenizer), max_length)
    if not codes:
        return FlatEncoder(tokenizer, max_length)
    # The side is a state of the tokenizer, and the encoder a clone of it.
    tokenizer.set_tgt_lang_special_tokens(tokenizer.tgt_lang)
    encoder = FlatEncoder(tokenizer, max_length)
    tokenizer.set_src_lang_special_tokens(tokenizer.src_lang)
    return encoder


def _code(options: Any, option: str, codes: Mapping[str, int]) -> str:
    value = getattr(options, option)
    if value is None:
        raise SpecError(
            f"mode seq2seq: the tokenizer is of a model for many languages: set {option} to one of its codes, such as "
            f"{examples(codes)}"
        )
    return known_code(value, codes, f"mode seq2seq: {option}", "the tokenizer")


def _prefix(options: Any, tokenizer: Any, codes: Mapping[str, int]) -> str:
    """What tells the model its languages, where that is a text."""
    source, target = options.source_language, options.target_language
    if codes or source is target is None:
        return ""
    marian = marian_codes(tokenizer)
    if marian is not None:
        return marian_prefix(tokenizer, marian, target, "mode seq2seq: target_language", "the tokenizer")
    # T5 and its kin are told apart by the tokens that mark the gaps of their pre-training.
    if tokenizer.convert_tokens_to_ids("<extra_id_0>") in (None, tokenizer.unk_token_id):
        raise SpecError(
            "mode seq2seq: the tokenizer has no language codes: leave out source_language and target_language, or set "
            "prefix"
        )
    if source is None or target is None:
        raise SpecError("mode seq2seq: set both source_language and target_language, or prefix")
    pair = (language(source, "mode seq2seq: source_language"), language(target, "mode seq2seq: target_language"))
    return sentence_prefix(*pair)


def _chosen(tokens: FlatTokens, kept: Array) -> Ragged:
    """The lists of some texts."""
    lengths = tokens.ids.lengths
    offsets = np.zeros(int(kept.sum()) + 1, np.int64)
    np.cumsum(lengths[kept], out=offsets[1:])
    values = tokens.ids.values
    return Ragged(values if kept.all() else values[np.repeat(kept, lengths)], offsets)
