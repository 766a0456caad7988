"""Whether a text was cut, told exactly: against the length that it has under no limit."""

from __future__ import annotations

from typing import Any

import pytest

from hfray.errors import RowError
from hfray.tasks.base import TaskOptions
from hfray.tasks.text import CutText, TextEncoder, Tokens, any_cut, check_text, text_of
from tests.models.support import letter_tokenizer
from tests.tasks.support import roberta_tokenizer

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
