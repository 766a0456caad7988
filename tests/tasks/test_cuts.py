"""Which cuts are proved, by the parts of a tokenizer."""

from __future__ import annotations

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from hfray.tasks.cuts import NoProofError, Proof, _alternatives, added_tokens, proof_of, special_tokens
from tests.tasks.features.test_pieces import GPT_4O, LLAMA_3
from tests.tasks.generation_support import tokenizer_of


def test_alternatives_are_told_apart_outside_groups_and_classes() -> None:
    assert _alternatives(r"(?i:'s|'t)|[|(]+|\||a(b|(c|d))| ?\p{L}+") == [
        "(?i:'s|'t)", "[|(]+", r"\|", "a(b|(c|d))", r" ?\p{L}+",
    ]  # fmt: skip


def changed(**parts: object) -> Tokenizer:
    backend = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for part, value in parts.items():
        setattr(backend, part, value)
    return backend


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


def test_what_is_proved_beside_cuts_at_spaces_between_letters() -> None:
    every = Proof(newlines=True, any_white_space=False, words=True, by_character=True)
    assert proof_of(changed()) == every
    assert proof_of(changed(pre_tokenizer=split(LLAMA_3))) == proof_of(changed(pre_tokenizer=split(GPT_4O))) == every
    assert proof_of(changed(pre_tokenizer=pre_tokenizers.BertPreTokenizer())).any_white_space
    assert not proof_of(changed(pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first"))).newlines
    for rules in (r" ?\p{L}+|\s+", r" ?\p{L}+| ?\p{N}+|\s+", r" ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"):
        assert not proof_of(changed(pre_tokenizer=split(rules))).words
    assert not proof_of(changed(normalizer=normalizers.Replace("''", '"'))).by_character
    assert proof_of(changed(normalizer=normalizers.Replace(Regex(r"\s+"), " "))).by_character


def test_what_is_not_known_is_refused() -> None:
    for wrong in (split(r"\w+ \w+|\p{L}+"), pre_tokenizers.UnicodeScripts(), pre_tokenizers.Digits()):
        with pytest.raises(NoProofError, match="pre-tokenizer"):
            proof_of(changed(pre_tokenizer=wrong))


def test_special_tokens_are_told_from_the_text() -> None:
    backend = Tokenizer.from_str(tokenizer_of("all-MiniLM-L6-v2").backend_tokenizer.to_str())
    backend.no_padding()
    first, last = special_tokens(backend)
    assert (first.tolist(), last.tolist()) == ([101], [102])
    twice = changed(post_processor=processors.TemplateProcessing(single="$A a $A", special_tokens=[("a", 0)]))
    with pytest.raises(NoProofError, match="special tokens cannot be told"):
        special_tokens(twice)


def test_added_tokens_as_written_and_as_normalized() -> None:
    assert {"[CLS]", "[cls]"} <= {*added_tokens(tokenizer_of("all-MiniLM-L6-v2").backend_tokenizer)}
