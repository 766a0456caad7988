"""Ids of many texts in one array: those of each text by itself."""

from __future__ import annotations

import numpy as np
import pytest

from hfray.tasks.flat import FlatEncoder, FlatTokens
from hfray.tasks.text import CutText
from tests.models.support import letter_tokenizer
from tests.tasks.features.support import Panicking
from tests.tasks.support import TEXTS
from tests.tasks.test_text import LIMIT, TOKENIZERS, encoded

MANY = [f"{text[:90]} {number}" for number in range(30) for text in TEXTS]


def flat_ids(tokens: FlatTokens) -> list[list[int]]:
    return [tokens.ids[index].tolist() for index in range(len(tokens.ids))]


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("limit", [None, LIMIT])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_flat_tokens_are_those_of_each_text(name: str, limit: int | None, special: bool) -> None:
    """More texts than go through the tokenizer at once."""
    encoder = FlatEncoder(TOKENIZERS[name](), limit, add_special_tokens=special)
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
    encoder = FlatEncoder(tokenizer, LIMIT)
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
    whole = FlatEncoder(letter_tokenizer(), LIMIT).encode_flat(MANY)
    encoder = FlatEncoder(letter_tokenizer(), LIMIT)
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
    encoder = FlatEncoder(letter_tokenizer(), LIMIT)
    assert encoder.encode_flat(["a", CutText("a"), "a"]).truncated.tolist() == [False, True, False]
    assert encoder.encode_flat(["a", "a"], ["b", CutText("b")]).truncated.tolist() == [False, True]


def test_no_flat_texts() -> None:
    flat = FlatEncoder(letter_tokenizer(), LIMIT).encode_flat([])
    assert (len(flat.ids), len(flat.ids.values), flat.truncated.tolist(), flat.errors) == (0, 0, [], {})
