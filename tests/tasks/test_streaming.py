from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfray.tasks.streaming import StopMatcher, StreamDecoder, cut_at_stop, decode_text, special_tokens
from tests.tasks.generation_support import contexts, tokenizer_of

TOKENIZERS = ("gpt2", "t5-small", "phi-3-mini")
MIXED = "Hi  there 👩‍👩‍👧 naïve — 日本語 ไทย עברית\n\n\tcode = {1: 'x'}  end 🙂"


def stream(tokenizer: Any, tokens: Sequence[int], stop: Sequence[str] = (), step: int = 1) -> list[str]:
    decoder = StreamDecoder(tokenizer, stop)
    pieces = [decoder.push(tokens[at : at + step]) for at in range(0, len(tokens), step)]
    return [*pieces, decoder.finish()]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("language", ["zh", "de", "en"])
def test_pieces_are_the_whole_text(name: str, language: str) -> None:
    tokenizer = tokenizer_of(name)
    for text in (*contexts(language), MIXED):
        tokens = tokenizer(text).input_ids
        whole = decode_text(tokenizer, tokens)
        if name != "t5-small":  # whose vocabulary lacks most of it
            assert whole.endswith(text[-20:])
        pieces = stream(tokenizer, tokens)
        assert "".join(pieces) == whole
        assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)
        assert "".join(stream(tokenizer, tokens, step=3)) == whole


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_tokens_stream_to_the_whole_text(name: str, data: Any) -> None:
    tokenizer = tokenizer_of(name)
    some = st.integers(0, 300) | st.integers(0, len(tokenizer) - 1)  # bytes and special tokens lie low
    tokens = data.draw(st.lists(some, max_size=30))
    whole = decode_text(tokenizer, tokens)
    pieces = stream(tokenizer, tokens)
    if name != "phi-3-mini" or "\N{REPLACEMENT CHARACTER}" not in whole:
        assert "".join(pieces) == whole


def test_text_comes_as_soon_as_it_is_certain() -> None:
    tokenizer = tokenizer_of("gpt2")
    tokens = tokenizer("one two 🪿 three").input_ids
    pieces = stream(tokenizer, tokens)
    assert pieces[:2] == ["one", " two"]
    assert sum(piece == "" for piece in pieces[:-1]) <= 4  # the bytes of the emoji
    assert any("🪿" in piece for piece in pieces)


def test_what_never_becomes_a_character_comes_at_the_end() -> None:
    tokenizer = tokenizer_of("gpt2")
    tokens = tokenizer("ok 🪿").input_ids[:-1]
    decoder = StreamDecoder(tokenizer)
    assert "\N{REPLACEMENT CHARACTER}" not in decoder.push(tokens)
    assert decoder.finish().endswith("\N{REPLACEMENT CHARACTER}")


def test_spoilt_bytes_do_not_take_back_what_was_sent() -> None:
    tokenizer = tokenizer_of("phi-3-mini")
    tokens = [*tokenizer("丟").input_ids[1:], tokenizer.convert_tokens_to_ids("<0xE4>"), *tokenizer("ok").input_ids]
    assert tokens[0] == tokenizer.convert_tokens_to_ids("<0xE4>")
    assert "".join(stream(tokenizer, tokens)).startswith("丟\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("step", [1, 4])
def test_nothing_of_a_stop_string_is_sent(name: str, step: int) -> None:
    tokenizer = tokenizer_of(name)
    text = "The answer is 42. Human: and then? Human: no"
    tokens = tokenizer(text).input_ids
    decoder = StreamDecoder(tokenizer, ("Human: no", " Human:", "never"))
    sent = ""
    for at in range(0, len(tokens), step):
        sent += decoder.push(tokens[at : at + step])
        assert "The answer is 42.".startswith(sent)
    assert decoder.stopped
    assert sent + decoder.finish() == "The answer is 42."
    assert decoder.push(tokens) == ""


def test_held_text_is_released_when_no_stop_string_follows() -> None:
    tokenizer = tokenizer_of("gpt2")
    tokens = tokenizer("a ### b ##").input_ids
    decoder = StreamDecoder(tokenizer, ("####",))
    assert "".join(decoder.push([token]) for token in tokens) == "a ### b "
    assert decoder.finish() == "##"
    assert not decoder.stopped


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_matcher_answers_at_the_first_token_that_completes_a_stop_string(name: str) -> None:
    tokenizer = tokenizer_of(name)
    for text, stop in (
        (contexts("de")[0], contexts("de")[0][300:340]),
        (contexts("zh")[0], contexts("zh")[0][100:140]),
        ("x" * 50 + MIXED, "日本語 ไ"),
        ("so it goes, unstoppable", "stop"),
        ("a\n\nb", "\n\n"),
    ):
        tokens = tokenizer(text, add_special_tokens=False).input_ids
        texts = [decode_text(tokenizer, tokens[:end]) for end in range(1, len(tokens) + 1)]
        matcher = StopMatcher(tokenizer, (stop, "certainly not there"))
        wanted = next((end for end, decoded in enumerate(texts, start=1) if stop in decoded), None)
        found = next((end for end in range(1, len(tokens) + 1) if matcher(tokens[:end])), None)
        assert found == wanted
        assert wanted is not None or name == "t5-small"


def test_a_matcher_sees_past_tokens_without_text() -> None:
    tokenizer = tokenizer_of("phi-3-mini")
    tokens = tokenizer("we stop", add_special_tokens=False).input_ids
    silent = [tokenizer.eos_token_id] * 200
    assert StopMatcher(tokenizer, ("we stop",))([*tokens[:1], *silent, *tokens[1:]])
    assert not StopMatcher(tokenizer, ("we stop",))([*tokens[:1], *silent])
    assert not StopMatcher(tokenizer, ("we stop",))([])


def test_a_matcher_decodes_a_bounded_tail() -> None:
    class Counting:
        longest = 0

        def decode(self, ids: list[int], **kwargs: Any) -> str:
            self.longest = max(self.longest, len(ids))
            return str(tokenizer_of("gpt2").decode(ids, **kwargs))

    tokens = tokenizer_of("gpt2")(" ".join(contexts("en"))).input_ids
    counting = Counting()
    assert not StopMatcher(counting, ("nowhere to be found",))(tokens)
    assert len(tokens) > 1000
    assert counting.longest < 60


def test_matchers_travel_and_are_equal_by_their_strings() -> None:
    matcher = StopMatcher(tokenizer_of("phi-3-mini"), ("\n",))
    travelled = pickle.loads(pickle.dumps(matcher))  # noqa: S301
    tokens = tokenizer_of("phi-3-mini")("a\nb").input_ids
    assert travelled == matcher
    assert travelled(tokens[:-1])
    assert matcher != StopMatcher(matcher.tokenizer, ("\t",))


def test_cut_at_the_earliest_stop_string() -> None:
    assert cut_at_stop("one two three", ("three", " two")) == "one"
    assert cut_at_stop("one", ("two",)) == "one"
    assert cut_at_stop("one", ()) == "one"


def test_special_tokens_that_belong_to_the_text_stand_where_they_are() -> None:
    """Also behind half a character, which they end; others are left out."""
    tokenizer = copy.deepcopy(tokenizer_of("gpt2"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["[MARK]", "[OTHER]"]})
    keep = special_tokens(tokenizer, ["[MARK]", "[ABSENT]", "word"])
    mark, other = tokenizer.convert_tokens_to_ids(["[MARK]", "[OTHER]"])
    assert keep == {mark: "[MARK]"}
    half = tokenizer("🎉").input_ids[:-1]
    tokens = [mark, *tokenizer("so so").input_ids, other, *half, mark, *tokenizer(" then").input_ids]
    whole = decode_text(tokenizer, tokens, keep)
    assert whole == "[MARK]so so\N{REPLACEMENT CHARACTER}[MARK] then"
    assert decode_text(tokenizer, [mark, *tokenizer("so").input_ids]) == "so"
    decoder = StreamDecoder(tokenizer, keep=keep)
    assert "".join([*(decoder.push([token]) for token in tokens), decoder.finish()]) == whole
