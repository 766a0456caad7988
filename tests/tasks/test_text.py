"""Whether a text was cut, told exactly: against the length that it has under no limit; many texts in one array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hfray.errors import RowError
from hfray.tasks.base import TaskOptions
from hfray.tasks.text import CutText, FlatTokens, TextEncoder, Tokens, any_cut, check_text, text_of
from tests.models.support import letter_tokenizer
from tests.tasks.features.support import Panicking
from tests.tasks.support import TEXTS, roberta_tokenizer

LENGTHS = range(1, 15)
LIMIT = 10


class Slow:
    """A tokenizer without a Rust backend, as `TextEncoder` sees one."""

    model_input_names = ("input_ids", "token_type_ids")

    def __init__(self) -> None:
        self._tokenizer = letter_tokenizer()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._tokenizer(*args, **kwargs)


TOKENIZERS = {"fast": letter_tokenizer, "four special tokens in a pair": roberta_tokenizer, "slow": Slow}


def encoded(encoder: TextEncoder, text: Any, pair: str | None = None) -> Tokens:
    (tokens,) = encoder.encode([text], None if pair is None else [pair])
    assert not isinstance(tokens, RowError)
    return tokens


@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_is_truncated_if_it_is_longer_than_the_limit(name: str, offsets: bool) -> None:
    tokenizer = TOKENIZERS[name]()
    cutting = TextEncoder(tokenizer, LIMIT, offsets=offsets)
    whole = TextEncoder(tokenizer, None, offsets=offsets)
    for text in (" ".join("a" * length) for length in LENGTHS):
        assert not encoded(whole, text).truncated
        assert encoded(cutting, text).truncated == (len(encoded(whole, text).ids) > LIMIT)


@pytest.mark.parametrize("truncation", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_pair_is_truncated_if_both_together_are_longer(name: str, truncation: Any) -> None:
    tokenizer = TOKENIZERS[name]()
    cutting, whole = TextEncoder(tokenizer, LIMIT, truncation=truncation), TextEncoder(tokenizer, None)
    for length in LENGTHS:
        pair = (" ".join("a" * length), "b b") if truncation != "only_second" else ("b b", " ".join("a" * length))
        assert encoded(cutting, *pair).truncated == (len(encoded(whole, *pair).ids) > LIMIT)


def test_words_are_a_text() -> None:
    encoder = TextEncoder(letter_tokenizer(), LIMIT, offsets=True)
    assert [encoded(encoder, ["a"] * length).truncated for length in (8, 9)] == [False, True]


def test_windows_leave_nothing_out() -> None:
    tokens = encoded(TextEncoder(letter_tokenizer(), LIMIT, stride=2, offsets=True), "a " * 50)
    assert len(tokens.windows) > 1
    assert not any(each.truncated for each in (tokens, *tokens.windows))


@pytest.mark.parametrize("stride", [0, 2])
def test_what_max_chars_cut_is_truncated_however_short(stride: int) -> None:
    encoder = TextEncoder(letter_tokenizer(), LIMIT, stride=stride, offsets=True)
    assert encoded(encoder, CutText("a")).truncated
    assert encoded(encoder, "a", CutText("b")).truncated
    assert encoded(encoder, CutText("a"), "b").truncated
    assert encoded(encoder, ["a", CutText("b")]).truncated
    assert [each.truncated for each in encoder.encode(["a", CutText("a"), "a"]) if isinstance(each, Tokens)] == [
        False,
        True,
        False,
    ]


def test_max_chars_cuts_or_refuses() -> None:
    cutting = TaskOptions(name="any", max_chars=5, over_max_chars="truncate")
    assert check_text("12345", "text", cutting) == "12345"
    assert not any_cut(["", check_text("12345", "text", cutting)])
    cut = text_of({"text": "123456"}, "text", cutting)
    assert cut == "12345"
    assert any_cut(["", cut])
    with pytest.raises(RowError, match="6 characters, over max_chars 5"):
        check_text("123456", "text", TaskOptions(name="any", max_chars=5))


def test_a_cut_text_is_one_with_a_prefix() -> None:
    prompt = "query: " + CutText("abc")
    assert prompt == "query: abc"
    assert isinstance("a" + prompt, CutText)


MANY = [f"{text[:90]} {number}" for number in range(30) for text in TEXTS]


def flat_ids(tokens: FlatTokens) -> list[list[int]]:
    return [tokens.ids[index].tolist() for index in range(len(tokens.ids))]


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("limit", [None, LIMIT])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_flat_tokens_are_those_of_each_text(name: str, limit: int | None, special: bool) -> None:
    """More texts than go through the tokenizer at once."""
    encoder = TextEncoder(TOKENIZERS[name](), limit, add_special_tokens=special)
    flat = encoder.encode_flat(MANY)
    tokens = [encoded(encoder, text) for text in MANY]
    assert flat_ids(flat) == [each.ids.tolist() for each in tokens]
    assert flat.truncated.tolist() == [each.truncated for each in tokens]
    assert flat.truncated.any() == (limit is not None)
    assert (flat.ids.values.dtype, flat.ids.offsets.dtype) == (np.int32, np.int64)
    assert (flat.type_ids, flat.errors) == (None, {})


@pytest.mark.parametrize("name", TOKENIZERS)
def test_flat_pairs_have_token_types_where_the_model_has(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    if name == "fast":
        tokenizer.model_input_names = ["input_ids", "token_type_ids"]
    encoder = TextEncoder(tokenizer, LIMIT)
    pairs = MANY[::-1]
    flat = encoder.encode_flat(MANY, pairs)
    tokens = [encoded(encoder, text, pair) for text, pair in zip(MANY, pairs, strict=True)]
    assert flat_ids(flat) == [each.ids.tolist() for each in tokens]
    assert flat.truncated.tolist() == [each.truncated for each in tokens]
    if name == "four special tokens in a pair":
        assert flat.type_ids is None
    else:
        assert flat.type_ids is not None
        assert [flat.type_ids[index].tolist() for index in range(len(MANY))] == [
            each.type_ids.tolist() for each in tokens
        ]
        assert flat.type_ids.values.max() == 1
    with pytest.raises(ValueError, match="zip"):
        encoder.encode_flat(MANY, MANY[:-1])


def test_a_text_that_the_tokenizer_panics_over_has_no_flat_tokens() -> None:
    encoder = TextEncoder(letter_tokenizer(), LIMIT)
    whole = encoder.encode_flat(MANY)
    encoder._backend = Panicking(encoder._backend)
    wrong = {3: CutText("PANIC"), 4: "a PANIC", len(MANY) + 2: "PANIC"}
    rest = iter(MANY)
    flat = encoder.encode_flat([wrong.get(index) or next(rest) for index in range(len(MANY) + 3)])
    assert {index: error.type for index, error in flat.errors.items()} == dict.fromkeys(wrong, "TokenizerFailure")
    assert "index out of bounds" in flat.errors[3].message
    assert [flat_ids(flat)[index] for index in wrong] == [[], [], []]
    kept = [index for index in range(len(flat.ids)) if index not in wrong]
    assert [flat_ids(flat)[index] for index in kept] == flat_ids(whole)
    assert flat.truncated[kept].tolist() == whole.truncated.tolist()
    assert not flat.truncated[list(wrong)].any()


def test_flat_texts_that_max_chars_cut_are_truncated() -> None:
    encoder = TextEncoder(letter_tokenizer(), LIMIT)
    assert encoder.encode_flat(["a", CutText("a"), "a"]).truncated.tolist() == [False, True, False]
    assert encoder.encode_flat(["a", "a"], ["b", CutText("b")]).truncated.tolist() == [False, True]


def test_no_flat_texts() -> None:
    flat = TextEncoder(letter_tokenizer(), LIMIT).encode_flat([])
    assert (len(flat.ids), len(flat.ids.values), flat.truncated.tolist(), flat.errors) == (0, 0, [], {})


def test_an_encoder_with_a_stride_has_no_flat_tokens() -> None:
    with pytest.raises(ValueError, match="has a stride"):
        TextEncoder(letter_tokenizer(), LIMIT, stride=2).encode_flat(["a"])
