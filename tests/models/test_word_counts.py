from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from hfray.models import word_counts
from hfray.models.word_counts import Corpus, alphabet_of, count_words, countable, known_parts, repeated


def backend() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def count(texts: Any, max_chars: int = 100, truncate: bool = False) -> tuple[dict[str, int], Corpus]:
    return count_words(texts, backend(), max_chars=max_chars, truncate=truncate)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", max_codepoint=0x2FF), max_size=20), max_size=8))
def test_words_are_counted_as_a_plain_loop_would(texts: list[str]) -> None:
    made = backend()
    expected = Counter(
        word
        for text in texts
        for word, _ in made.pre_tokenizer.pre_tokenize_str(made.normalizer.normalize_str(text))
        if word
    )
    counts, corpus = count(iter(texts))
    assert counts == expected
    assert list(counts) == sorted(counts)
    assert corpus == Corpus(len(texts), 0, sum(map(len, texts)), len(expected))


def test_texts_come_alone_or_in_lists() -> None:
    assert count(["a b", "b"]) == count([["a b", "b"]]) == count(iter([["a b"], "b"]))


def test_what_is_no_text_is_skipped() -> None:
    counts, corpus = count(["a", None, "b \ud800", ["c", 7, "x" * 101], "", "d" * 100])
    assert counts == {"a": 1, "c": 1, "d" * 100: 1}
    assert corpus == Corpus(num_texts=4, num_skipped=4, num_chars=102, num_words=3)


def test_a_long_text_may_be_cut() -> None:
    counts, corpus = count(["aa bb cc", "a"], max_chars=5, truncate=True)
    assert counts == {"aa": 1, "bb": 1, "a": 1}
    assert corpus == Corpus(2, 0, 6, 3)


def test_what_the_texts_raise_passes() -> None:
    def texts() -> Any:
        yield "a"
        raise KeyError("the file went away")

    with pytest.raises(KeyError, match="the file went away"):
        count(texts())


def test_counts_are_divided_until_they_can_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"aa": 100, "b": 3, "c": 1}
    assert countable(counts) == counts
    monkeypatch.setattr(word_counts, "MAX_CHARS_COUNTED", 204)
    assert countable(counts) == counts
    monkeypatch.setattr(word_counts, "MAX_CHARS_COUNTED", 203)
    assert countable(counts) == {"aa": 50, "b": 1}


def test_an_alphabet_covers_a_share_of_the_text() -> None:
    counts = {"aab": 10, "cd": 1, "e": 1}  # a 20, b 10, then c, d, e: 33 in all
    assert alphabet_of(counts, 1.0) == set("abcde")
    assert alphabet_of(counts, 32 / 33) == set("abcd")
    assert alphabet_of(counts, 30 / 33) == set("ab")
    assert alphabet_of(counts, 20 / 33) == set("a")
    assert alphabet_of({"ba": 1}, 0.5) == set("a")  # equals: the first in Unicode


def test_words_are_cut_at_unknown_characters_and_at_a_length() -> None:
    assert known_parts({"abxcd": 2, "ab": 3, "xx": 1}, frozenset("abcd"), 100) == {"ab": 5, "cd": 2}
    assert known_parts({"abcda": 2, "bx": 1}, frozenset("abcd"), 2) == {"ab": 2, "cd": 2, "a": 2, "b": 1}


@given(st.dictionaries(st.text("abc", min_size=1, max_size=9), st.integers(1, 50)))
def test_words_are_repeated(counts: dict[str, int]) -> None:
    assert Counter(word for line in repeated(counts) for word in line.split()) == counts


def test_lines_stay_short() -> None:
    lines = list(repeated({"abc": 100_000, "x" * 200_000: 2, "d": 3}))
    assert Counter(word for line in lines for word in line.split()) == {"abc": 100_000, "x" * 200_000: 2, "d": 3}
    assert max(len(line) for line in lines if "x" not in line) <= 1 << 16
    assert max(len(line) for line in lines) < 270_000
