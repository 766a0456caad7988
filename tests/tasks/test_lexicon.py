"""Texts tokenised word by word have the whole's tokens, whatever they hold, or are left to the tokenizer."""

from __future__ import annotations

import threading
from array import array
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from hfray.tasks import lexicon as module
from hfray.tasks.cuts import NoProofError
from hfray.tasks.lexicon import Lexicon, lexicon_of
from tests.tasks.features.test_pieces import FRAGMENTS, MADE, PLAIN_TEXTS, REFUSED, STORED, TEXTS, tokenizer
from tests.tasks.generation_support import contexts, tokenizer_of

SPACES = st.sampled_from([" ", " ", " ", " ", " ", " ", "  ", "  ", "   ", "", "\n", " \n", "\t ", "\u00a0", "\u3000 "])
WORDS = st.sampled_from(
    [
        *("the", "The", "end.", "(so", "1,000", "don't", "–", "“well”", "–well", "£5", "5°", "½", "²", "café", "Łódź"),
        *("ŉ", "ſ", "ĳ", "Ω", "Σας", "вот", "سلام", "שלום", "e\u0301", "\u0301e", "\u00ad", "¨", "´x", "…", "‧", "``a"),
        *("''", "\u0600a", "a\u0600", "\u200da", "a\u200d", "\u1100", "각", "今", "今天a", "İ", "ﬁ", "▁", "x▁"),
        *("\x07", "\ufeff"),
    ]
)
SPACED = st.lists(st.tuples(st.one_of(WORDS, WORDS, FRAGMENTS), SPACES), max_size=24).map(
    lambda parts: "".join(part for pair in parts for part in pair)
)


def plain_backend(name: str) -> Any:
    backend = Tokenizer.from_str(tokenizer(name).backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


@lru_cache
def known(name: str) -> Lexicon:
    return Lexicon(plain_backend(name))


def ids_of(lexicon: Lexicon, text: str) -> list[int] | None:
    ids = lexicon.ids(text)
    return None if ids is None else array("i", ids).tolist()


def whole(lexicon: Lexicon, text: str) -> list[int]:
    ids: list[int] = lexicon._backend.encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.slow
@pytest.mark.parametrize("name", [each for each in (*STORED, *MADE) if each not in REFUSED | {"added tokens"}])
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(st.one_of(SPACED, SPACED, TEXTS, PLAIN_TEXTS), max_size=6))
def test_words_give_the_tokens_of_the_whole(name: str, texts: list[str]) -> None:
    """What one text taught is used for the next ones, and for itself."""
    lexicon = known(name)
    lexicon._known.clear()
    lexicon._num_strange = 0
    for text in [*texts, *texts, " ".join(texts)]:
        assert ids_of(lexicon, text) in (None, whole(lexicon, text))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "gpt2", "t5-small", "clip", "llama 3", "gpt-4o", "metaspace"])
def test_real_text_is_known_word_by_word(name: str) -> None:
    lexicon = known(name)
    texts = contexts("en", 40) + contexts("de", 20)
    for _ in range(2):
        made = [ids_of(lexicon, text) for text in texts]
        assert [each for each, text in zip(made, texts, strict=True) if each not in (None, whole(lexicon, text))] == []
        assert sum(each is not None for each in made) > 0.8 * len(texts)
    assert len(lexicon._known) > 1000


def test_a_word_that_holds_an_added_token_is_left_to_the_tokenizer() -> None:
    lexicon = Lexicon(plain_backend("all-MiniLM-L6-v2"))
    assert lexicon.ids("one [MASK] two") is None
    assert lexicon.ids("one two[SEP]") is None
    assert ids_of(lexicon, "one two") == whole(lexicon, "one two")


def test_an_added_token_counts_as_it_is_normalized() -> None:
    backend = plain_backend("all-MiniLM-L6-v2")
    backend.add_tokens([AddedToken("zebra", normalized=True)])
    lexicon = Lexicon(backend)
    assert lexicon.ids("a ZEBRA here") is None
    assert ids_of(lexicon, "a horse here") == whole(lexicon, "a horse here")


def test_what_only_looks_like_words_is_left_to_the_tokenizer() -> None:
    lexicon = Lexicon(plain_backend("all-MiniLM-L6-v2"))
    assert ids_of(lexicon, "a b") == whole(lexicon, "a b")
    assert lexicon.ids("a\0b") is None
    assert lexicon.ids("今天天气" * 100) is None
    assert lexicon.ids("a \ud800 b") is None
    # Learnt as the beginning of a text, where nothing stands before its space.
    assert ids_of(lexicon, " \u0301a b") == whole(lexicon, " \u0301a b")
    assert " \u0301a" not in lexicon._known


def test_a_tokenizer_without_a_proof_has_no_lexicon() -> None:
    with pytest.raises(NoProofError):
        Lexicon(Tokenizer.from_str(tokenizer_of("phi-3-mini").backend_tokenizer.to_str()))
    backend = plain_backend("all-MiniLM-L6-v2")
    backend.add_tokens(["two words"])
    with pytest.raises(NoProofError, match="an added token holds a space"):
        Lexicon(backend)
    backend = plain_backend("gpt2")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters = pre_tokenizers.Split(Regex(r" ?\p{L}+|\s+"), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([letters, byte_level])
    with pytest.raises(NoProofError, match="some signs or numbers"):
        Lexicon(backend)
    assert lexicon_of(backend) is None


def test_a_normalizer_that_changes_where_words_meet_is_asked() -> None:
    """Of the word alone it strips what in the middle of a text stays."""
    backend = plain_backend("metaspace")
    backend.normalizer = normalizers.Sequence([normalizers.Replace(",", " "), normalizers.Strip(left=False)])
    lexicon = Lexicon(backend)
    assert ids_of(lexicon, "one two") == whole(lexicon, "one two")
    assert lexicon.ids("one, two") is None


def test_a_word_that_the_normalizer_leaves_open_is_asked() -> None:
    backend = plain_backend("gpt2")
    backend.normalizer = normalizers.Replace("Z", "\n")
    lexicon = Lexicon(backend)
    assert ids_of(lexicon, "aZb c") == whole(lexicon, "aZb c")
    assert lexicon.ids("aZ b") is None
    assert lexicon.ids("a Zb") is None


def test_few_words_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WORDS", 10)
    lexicon = Lexicon(plain_backend("gpt2"))
    for number in range(40):
        text = f"row {number} is {number + 1} not long" + "x" * 100
        assert ids_of(lexicon, text) == whole(lexicon, text)
        assert len(lexicon._known) <= 10 + 6
        assert all(len(word) <= module.MAX_WORD_CHARS for word in lexicon._known)


def test_texts_of_words_that_never_come_again_are_left_to_the_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STRANGE_WORDS", 20)
    lexicon = Lexicon(plain_backend("gpt2"))
    made = [lexicon.ids(" ".join(f"{number}a{place}" for place in range(10))) for number in range(5)]
    assert [each is None for each in made] == [False, False, False, True, True]
    common = "0a0 0a1 0a2 0a3 new"
    assert ids_of(lexicon, common) == whole(lexicon, common)


def test_threads_may_share_a_lexicon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WORDS", 50)  # so that it is often emptied
    lexicon = Lexicon(plain_backend("gpt2"))
    texts = contexts("en", 30)
    expected = [whole(lexicon, text) for text in texts]
    wrong: list[str] = []

    def work() -> None:
        for _ in range(3):
            for text, ids in zip(texts, expected, strict=True):
                if ids_of(lexicon, text) != ids and lexicon.ids(text) is not None:
                    wrong.append(text)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
