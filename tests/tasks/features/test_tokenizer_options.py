from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hfray.tasks.features.tokenizer_options import CHAT_TEMPLATES, DEFAULT_TOKENS, TokenizerOptions


@pytest.mark.parametrize("algorithm", DEFAULT_TOKENS)
def test_the_defaults_of_an_algorithm(algorithm: Any) -> None:
    options = TokenizerOptions(algorithm=algorithm)
    assert options.name == "tokenizer"
    assert options.tokens == DEFAULT_TOKENS[algorithm]
    assert options.template is None
    assert options.all_special_tokens[0] == options.tokens["pad"]
    assert TokenizerOptions.model_validate(options.model_dump(mode="json")) == options


def test_special_tokens_come_in_the_order_of_their_roles() -> None:
    options = TokenizerOptions(
        algorithm="wordpiece",
        special_tokens={"eos": "<e>", "cls": None, "unk": "<?>", "sep": "<e>"},
        extra_special_tokens=("<x>", "<y>"),
        chat_template="chatml",
    )
    assert list(options.tokens.items()) == [
        ("pad", "[PAD]"),
        ("unk", "<?>"),
        ("sep", "<e>"),
        ("mask", "[MASK]"),
        ("eos", "<e>"),
    ]
    marks = ("<|im_start|>", "<|im_end|>")
    assert options.all_special_tokens == ("[PAD]", "<?>", "<e>", "[MASK]", *marks, "<x>", "<y>")


def test_a_template_is_text_or_a_name() -> None:
    assert TokenizerOptions(chat_template="chatml").template == CHAT_TEMPLATES["chatml"]
    assert TokenizerOptions(chat_template="{{ messages }}").template == "{{ messages }}"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"algorithm": "bytes"}, "Input should be 'byte-bpe', 'bpe', 'wordpiece' or 'unigram'"),
        ({"vocab_size": 257}, "vocab_size: 257 is too small; byte-bpe .* at least 258"),
        ({"vocab_size": 258, "extra_special_tokens": ("<x>",)}, "vocab_size: 258 is too small; byte-bpe .* least 259"),
        ({"algorithm": "unigram", "min_frequency": 2}, "min_frequency is not for algorithm unigram"),
        ({"character_coverage": 0.9}, "character_coverage is not for algorithm byte-bpe"),
        ({"algorithm": "bpe", "character_coverage": 1.1}, "less than or equal to 1"),
        ({"algorithm": "bpe", "special_tokens": {"unk": None}}, "algorithm bpe needs the role unk"),
        ({"special_tokens": {"end": "<e>"}}, "Input should be 'pad', 'unk', 'cls'"),
        ({"special_tokens": {"eos": " "}}, "a special token is text without spaces around it"),
        ({"extra_special_tokens": ("<x> ",)}, "a special token is text without spaces around it"),
        ({"extra_special_tokens": ("<x>", "<y>", "<x>")}, "names '<x>' twice"),
        ({"chat_template": "chatlm"}, "neither a Jinja template nor the name of one; known: chatml"),
        ({"max_length": 0}, "greater than or equal to 1"),
    ],
)
def test_what_does_not_fit(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        TokenizerOptions(**options)


@pytest.mark.parametrize("algorithm", DEFAULT_TOKENS)
def test_the_least_vocabulary_is_accepted(algorithm: Any) -> None:
    special = len(TokenizerOptions(algorithm=algorithm).all_special_tokens)
    least = special + (256 if algorithm == "byte-bpe" else 1)
    if least > 8:
        assert TokenizerOptions(algorithm=algorithm, vocab_size=least).vocab_size == least
        with pytest.raises(ValidationError):
            TokenizerOptions(algorithm=algorithm, vocab_size=least - 1)
