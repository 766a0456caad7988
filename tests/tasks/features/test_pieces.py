"""A text tokenised in pieces has the whole's tokens, whatever it holds, or is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from hfray.errors import RowError
from hfray.tasks.features.pieces import Pieces
from tests.conftest import SHARED_DATA
from tests.tasks.generation_support import contexts, tokenizer_of
from tests.tasks.support import bert_tokenizer, roberta_tokenizer

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT_4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
STORED = ("gpt2", "all-MiniLM-L6-v2", "distilbert-base-uncased", "t5-small", "clip", "phi-3-mini")
MADE = ("bert", "roberta", "prefix space", "llama 3", "gpt-4o", "digits", "metaspace", "added tokens")
REFUSED = {"phi-3-mini"}
ONLY_SPACES = {"clip", "prefix space", "metaspace"}
"""Those whose proof does not hold after a newline."""

FRAGMENTS = st.sampled_from(
    [
        *("the", "The", "don't", "WON'T", "I'll", "naïve", "Straße", "x", "a1b2", "3.14", "2024", "1234567", "e-mail"),
        *("今天", "天气。", "。", "привет", "Ёлка", "مرحبا", "שלום", "한국어", "カタカナ", "हिन्दी", "नमस्ते", "ไทย"),
        *(
            "e\u0301",
            "\u0301",
            "\u200d",
            "👩‍👩‍👧",
            "🎉",
            "ﬁ",
            "Ⅷ",
            "\u00a0",
            "\u3000",
            "\u2028",
            "\u200b",
            "\ufeff",
            "İ",
            "ß",
        ),
        *(
            "\t",
            "\n",
            "\n\n",
            "\r\n",
            " ",
            "  ",
            "    ",
            "\n ",
            " \n",
            "\x85",
            "\x1f",
            "/",
            "//\n",
            "```",
            "{",
            "}\n{",
            ");\n",
        ),
        *(
            "[CLS]",
            "[MASK]",
            "[SEP]",
            "</s>",
            "<s>",
            "<|endoftext|>",
            "<|startoftext|>",
            "<extra_id_0>",
            "<pad>",
            "▁",
            "▁a",
        ),
        *("<|user|>", "<|end|>", "SPECIAL", "special", "left", "right", "two words", "</w>", "##ing", "Ġ", "Ċ"),
    ]
)
TEXTS = st.lists(
    st.one_of(
        FRAGMENTS,
        FRAGMENTS.map(lambda each: f"{each} "),
        st.sampled_from(["word ", "and then\n", "so "]),
        st.text(max_size=4),
    ),
    max_size=80,
).map("".join)
PLAIN = st.sampled_from(
    ["some more words here, and", "they said so; then we left", "das Straßenfest begann früh", "и вот они пришли сюда"]
)
SEPARATORS = st.sampled_from([" ", " ", "\n", "\n", "\n\n", "  ", ".\n", "\n/", "", "\r\n", "\t", "\u00a0"])
PLAIN_TEXTS = st.lists(
    st.one_of(st.tuples(PLAIN, SEPARATORS), st.tuples(PLAIN, SEPARATORS), st.tuples(FRAGMENTS, SEPARATORS)), max_size=30
).map(lambda parts: "".join(part for pair in parts for part in pair))
"""Where cuts are many, near things that make them unsafe."""


@lru_cache
def tokenizer(name: str) -> Any:
    if name in STORED:
        return tokenizer_of(name)
    if name == "bert":
        return bert_tokenizer()
    if name == "roberta":
        return roberta_tokenizer()
    backend = Tokenizer.from_str(tokenizer_of("gpt2").backend_tokenizer.to_str())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if name == "prefix space":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif name in ("llama 3", "gpt-4o"):
        split = pre_tokenizers.Split(Regex(LLAMA_3 if name == "llama 3" else GPT_4O), "isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        backend.normalizer = normalizers.NFC()
    elif name == "digits":
        digits, rest = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, rest])
    elif name == "metaspace":
        backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
        backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        backend.train_from_iterator(contexts("en"), BpeTrainer(special_tokens=["<unk>", "<s>"], show_progress=False))
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")
    if name == "added tokens":
        from transformers import AddedToken

        made.add_tokens(
            [
                AddedToken("left", lstrip=True),
                AddedToken("right", rstrip=True),
                AddedToken("special", single_word=True),
                AddedToken("two words"),
                AddedToken("▁a", normalized=True),
            ]
        )
    return made


class Unchecked(Pieces):
    """Cuts where the structure of the tokenizer says so, without asking the tokenizer itself."""

    def _words(self, text: str) -> list[str]:
        return []


@lru_cache
def pieces_of(name: str, kind: type[Pieces] = Pieces) -> Pieces:
    return kind(tokenizer(name))


def cuts_or_error(pieces: Pieces, text: str, max_chars: int) -> list[int] | RowError:
    try:
        return pieces.cuts(text, max_chars)
    except RowError as error:
        return error


def in_two(pieces: Pieces, text: str, cut: int) -> list[int]:
    """The tokens of a text cut at one place."""
    parts = [pieces._backend.encode(part, add_special_tokens=False).ids for part in (text[:cut], text[cut:])]
    return [*pieces._first, *parts[0], *parts[1], *pieces._last]


def whole(name: str, text: str) -> list[int]:
    ids: list[int] = tokenizer(name)(text, truncation=False, padding=False, verbose=False)["input_ids"]
    return ids


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Pieces, Unchecked])
@pytest.mark.parametrize("name", [*STORED, *MADE])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.one_of(TEXTS, PLAIN_TEXTS, PLAIN_TEXTS), max_chars=st.integers(8, 200))
def test_pieces_give_the_tokens_of_the_whole_or_refuse(
    name: str, kind: type[Pieces], text: str, max_chars: int
) -> None:
    pieces = pieces_of(name, kind)
    cuts = cuts_or_error(pieces, text, max_chars)
    if isinstance(cuts, RowError):
        assert cuts.type == "TextTooLong"
        assert f"max_chars {max_chars}" in cuts.message
    elif name in REFUSED:
        assert not cuts
    else:
        assert all(0 <= end - start <= max_chars for start, end in pairwise([0, *cuts, len(text)]))
        assert pieces.encode(text, max_chars).tolist() == whole(name, text)
        every = list(pieces._cuts_before(text, 0, len(text)))
        for cut in every[:: len(every) // 8 + 1]:
            assert in_two(pieces, text, cut) == whole(name, text)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*STORED, *MADE])
def test_every_cut_that_counts_as_safe_is(name: str) -> None:
    """Not only the cuts that a text happens to need: all there are in real text, each alone."""
    pieces = pieces_of(name)
    if pieces.refusal:
        assert name in REFUSED
        return
    languages = " ".join("\n".join(contexts(language, 2)) for language in ("en", "de", "zh"))
    text = languages + "\n" + (SHARED_DATA / "tinyshakespeare" / "input.txt").read_text()[:1500]
    expected = whole(name, text)
    cuts = list(pieces._cuts_before(text, 0, len(text)))
    assert len(cuts) > 100
    for cut in cuts[:: max(1, len(cuts) // 150)]:
        assert in_two(pieces, text, cut) == expected
    kinds = {text[cut] == " " for cut in cuts}
    assert kinds == ({True} if name in ONLY_SPACES else {True, False})


@pytest.mark.parametrize("name", ["gpt2", "t5-small", "clip"])
def test_a_text_is_cut_as_late_as_it_may_be(name: str) -> None:
    text = "word " * 2000
    cuts = pieces_of(name).cuts(text, 1000)
    assert len(cuts) == 10
    assert pieces_of(name).cuts(text, len(text)) == []


@pytest.mark.parametrize(
    "text", ["x" * 500, "word  " * 100, "1 2 3 4 " * 100, "e\u0301 e\u0301 " * 100, "<|endoftext|> a b " * 50]
)
def test_a_text_without_a_safe_place_is_refused_and_says_where(text: str) -> None:
    with pytest.raises(
        RowError, match=r"over max_chars 30, .* no place to cut it safely in characters 0 to 30"
    ) as info:
        pieces_of("gpt2").encode(text, 30)
    assert info.value.type == "TextTooLong"


def unproved() -> dict[str, Any]:
    """By a part of the reason."""

    def changed(**parts: Any) -> Any:
        backend = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        for part, value in parts.items():
            setattr(backend, part, value)
        return PreTrainedTokenizerFast(tokenizer_object=backend)

    split = pre_tokenizers.Split
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return {
        "BPE model with dropout": changed(model=models.BPE({"a": 0, "b": 1}, [], dropout=0.1)),
        "normalizer": changed(normalizer=normalizers.Prepend("▁")),
        "normalizer .*left": changed(normalizer=normalizers.Strip(left=True, right=False)),
        "normalizer .*Regex": changed(normalizer=normalizers.Replace(Regex("a b"), "c")),
        "normalizer .*String": changed(normalizer=normalizers.Replace(" ", "▁")),
        "pre-tokenizer does not end words": changed(pre_tokenizer=None),
        "pre-tokenizer .*Split": changed(pre_tokenizer=split(Regex(r"\w+ \w+|\p{L}+"), "isolated")),
        "pre-tokenizer .*MergedWithNext": changed(pre_tokenizer=split(Regex(LLAMA_3), "merged_with_next")),
        "pre-tokenizer .*ByteLevel": changed(
            pre_tokenizer=pre_tokenizers.Sequence([byte_level, split(Regex(r"\p{L}+|\s+"), "isolated")])
        ),
        "pre-tokenizer .*UnicodeScripts": changed(pre_tokenizer=pre_tokenizers.UnicodeScripts()),
        "Rust backend": object(),
    }


def test_a_tokenizer_without_a_proof_is_refused_with_the_reason() -> None:
    for reason, each in unproved().items():
        pieces = Pieces(each)
        assert pieces.refusal is not None
        with pytest.raises(RowError, match=reason) as info:
            pieces.cuts("some words " * 10, 20)
        assert info.value.type == "TextTooLong"


@pytest.mark.slow
def test_a_short_text_needs_no_proof() -> None:
    assert pieces_of("phi-3-mini").cuts("some words", 20) == []


MEASURE = """
import json, re, sys
from hfray.tasks.features.pieces import Pieces
from tests.tasks.generation_support import tokenizer_of
pieces = Pieces(tokenizer_of("gpt2"))
text = open(sys.argv[1], encoding="utf-8").read()
text = (text * (20_000_000 // len(text) + 1))[:20_000_000]
def peak_mb():  # of this program alone: ru_maxrss also knows what the process was before it
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
before = peak_mb()
ids = pieces.encode(text, 1_000_000)
print(json.dumps([len(ids), before, peak_mb()]))
"""


@pytest.mark.slow
def test_a_document_of_20_mb_takes_little_memory() -> None:
    path = SHARED_DATA / "wikitext2_raw" / "wiki.test.raw"
    if not path.is_file():
        pytest.skip("no shared data: wikitext2_raw/wiki.test.raw")
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    ).stdout
    num_tokens, before_mb, peak_mb = json.loads(output)
    assert num_tokens > 4_000_000
    assert peak_mb - before_mb < 400
    assert peak_mb < 1500
