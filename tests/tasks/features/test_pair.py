"""Pairs of texts: the ids and token types of Transformers and `datasets`, cut in every way; bad rows fail alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from hfray.tasks.features.pair import Pair
from tests.models.support import letter_tokenizer
from tests.tasks.features.support import Panicking, Slow, encode, fails, listed, mapped, plainly, squad, stsb
from tests.tasks.support import TEXTS, roberta_tokenizer

PRESENT = {"text": pa.string(), "text_pair": pa.string(), "label": pa.int64()}
GOOD = [{"text": "ab c", "text_pair": each, "label": 1} for each in ("d", "e" * 30, "f g")]
PAIRS = [{"text": first, "text_pair": second} for first in TEXTS[:6] for second in TEXTS[:6]]


def typed() -> Any:
    """A tokenizer of a model with token types."""
    tokenizer = letter_tokenizer()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer


def pair(tokenizer: Any, max_length: int | None = None, present: dict[str, Any] = PRESENT, **options: Any) -> Pair:
    return Pair(Pair.Options(**options), tokenizer, max_length, present)


def without_label(tokenizer: Any, max_length: int | None = None, **options: Any) -> Pair:
    return pair(tokenizer, max_length, {"text": pa.string(), "text_pair": pa.string()}, **options)


@pytest.mark.slow
def test_stsb_as_datasets_maps_it(shared_data: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "all-MiniLM-L6-v2")
    firsts, seconds, scores = stsb(shared_data)

    def tokenise(batch: Any) -> dict[str, Any]:
        encoded = tokenizer(batch["text"], batch["text_pair"], truncation=True, max_length=40)
        return {name: encoded[name] for name in ("input_ids", "token_type_ids")}

    wanted = mapped({"text": firsts, "text_pair": seconds}, tokenise)
    rows = [
        {"text": first, "text_pair": second, "label": score}
        for first, second, score in zip(firsts, seconds, scores, strict=True)
    ]
    made = encode(pair(tokenizer, 40, PRESENT | {"label": pa.float32()}), rows)
    found = plainly(made)
    assert found.pop("labels") == pytest.approx(scores)
    assert found == wanted
    whole = tokenizer(firsts, seconds)["input_ids"]
    assert made.truncated == tuple(row for row, ids in enumerate(whole) if len(ids) > 40) != ()


@pytest.mark.slow
@pytest.mark.parametrize("truncation", ["longest_first", "only_second"])
def test_squad_as_transformers_cuts_it(shared_data: Path, truncation: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "all-MiniLM-L6-v2")
    rows = squad(shared_data, "squad_v1.1/dev-v1.1.json")[::10]
    firsts, seconds = [row["question"] for row in rows], [row["context"] for row in rows]
    wanted = tokenizer(firsts, seconds, truncation=truncation, max_length=128)
    features = without_label(tokenizer, 128, truncation=truncation)
    made = encode(features, [{"text": a, "text_pair": b} for a, b in zip(firsts, seconds, strict=True)])
    assert plainly(made) == {name: wanted[name] for name in ("input_ids", "token_type_ids")}


@pytest.mark.parametrize("make", [typed, roberta_tokenizer])
@pytest.mark.parametrize("padding", ["none", "max_length"])
def test_as_transformers_does(make: Any, padding: Any) -> None:
    """Token types where the model has them, padded as the rest."""
    tokenizer = make()
    made = encode(without_label(tokenizer, 50, padding=padding), PAIRS)
    firsts, seconds = ([row[name] for row in PAIRS] for name in ("text", "text_pair"))
    wanted = tokenizer(firsts, seconds, truncation=True, max_length=50, padding=padding if padding != "none" else False)
    names = [name for name in ("input_ids", "token_type_ids") if name in tokenizer.model_input_names]
    names += ["attention_mask"] if padding != "none" else []
    assert plainly(made) == {name: wanted[name] for name in names}


def test_a_text_that_leaves_no_room_for_the_other_fails_its_row() -> None:
    long, short = {"text": "a" * 30, "text_pair": "b", "label": 0}, {"text": "a", "text_pair": "b" * 30, "label": 0}
    second, first = (pair(typed(), 12, truncation=f"only_{each}") for each in ("second", "first"))
    assert fails(second, [short, short], long)[0] == "TokenizerFailure"
    assert fails(first, [long, long], short)[0] == "TokenizerFailure"
    made = encode(second, [short])
    assert listed(made.columns["input_ids"])[0].count(typed().convert_tokens_to_ids("##b")) == 7
    assert made.truncated == (0,)


@pytest.mark.parametrize(
    ("changes", "type_"),
    [
        ({"text": None}, "NullText"),
        ({"text_pair": None}, "NullText"),
        ({"text_pair": 3}, "WrongType"),
        ({"text_pair": "a\ud800"}, "InvalidText"),
        ({"text_pair": "a\x00"}, "InvalidText"),
        ({"text_pair": ""}, "EmptyText"),
        ({"text_pair": "PANIC"}, "TokenizerFailure"),
        ({"label": None}, "NullLabel"),
        ({"label": "x"}, "WrongType"),
        ({"label": 2}, "UnknownLabel"),
    ],
)
def test_a_bad_row_fails_alone(changes: dict[str, Any], type_: str) -> None:
    features = pair(typed(), 20, labels=["no", "yes"])
    features._encoder._backend = Panicking(features._encoder._backend)
    assert fails(features, GOOD, GOOD[0] | changes)[0] == type_


def test_a_missing_column() -> None:
    features = pair(typed())
    assert fails(features, GOOD, {"text": "a", "label": 0}) == ("MissingColumn", "column 'text_pair' is missing")


def test_a_tokenizer_without_a_backend() -> None:
    fast, slow = (encode(without_label(each, 40), PAIRS) for each in (typed(), Slow(typed())))
    assert plainly(slow) == plainly(fast)
    assert slow.truncated == fast.truncated


def test_no_rows() -> None:
    assert plainly(encode(pair(typed()), [])) == {"input_ids": [], "token_type_ids": [], "labels": []}
