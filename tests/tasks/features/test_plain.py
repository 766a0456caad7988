"""Single texts: the ids of Transformers and `datasets`, labels, padding; bad rows fail alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from hfray.errors import SpecError
from hfray.tasks.features.labels import index_labels
from hfray.tasks.features.plain import Plain
from tests.models.support import letter_tokenizer
from tests.tasks.features.support import Panicking, Slow, banking77, encode, fails, listed, mapped, plainly, stsb
from tests.tasks.support import TEXTS

LABELLED = {"text": pa.string(), "label": pa.string()}
GOOD = [{"text": "ab c", "label": "x"}, {"text": "d" * 30, "label": "y"}, {"text": "e", "label": "x"}]


def plain(tokenizer: Any, max_length: int | None = None, present: dict[str, Any] = LABELLED, **options: Any) -> Plain:
    return Plain(Plain.Options(**options), tokenizer, max_length, present)


@pytest.mark.slow
def test_banking77_as_datasets_maps_it(shared_data: Path) -> None:
    import datasets

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "all-MiniLM-L6-v2")
    texts, names = banking77(shared_data)
    known = sorted(set(names))
    label = datasets.ClassLabel(names=known)
    wanted = mapped(
        {"text": texts, "label": names},
        lambda batch: {
            "input_ids": tokenizer(batch["text"], truncation=True, max_length=24)["input_ids"],
            "labels": [label.str2int(name) for name in batch["label"]],
        },
    )
    rows = [{"text": text, "label": name} for text, name in zip(texts, names, strict=True)]
    made = encode(plain(tokenizer, 24, labels=known), rows)
    assert plainly(made) == wanted
    whole = tokenizer(texts)["input_ids"]
    assert list(made.truncated) == [row for row, ids in enumerate(whole) if len(ids) > 24]
    open_names = encode(plain(tokenizer, 24), rows)
    assert open_names.columns["labels"] == names
    assert listed(index_labels(names, known)) == wanted["labels"]


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_as_transformers_pads(side: Any) -> None:
    tokenizer = letter_tokenizer()
    tokenizer.padding_side = side
    features = plain(tokenizer, 12, {"text": pa.string()}, padding="max_length")
    made = encode(features, [{"text": text} for text in TEXTS])
    wanted = tokenizer(list(TEXTS), truncation=True, max_length=12, padding="max_length")
    assert plainly(made) == {name: wanted[name] for name in ("input_ids", "attention_mask")}


def test_a_text_alone_has_ids_alone() -> None:
    features = plain(letter_tokenizer(), None, {"text": pa.string()})
    made = encode(features, [{"text": text} for text in TEXTS])
    assert plainly(made) == {"input_ids": letter_tokenizer()(list(TEXTS))["input_ids"]}
    assert features.label_names is None
    assert not made.truncated


def test_regression(shared_data: Path) -> None:
    firsts, _, scores = stsb(shared_data)
    features = plain(letter_tokenizer(), 8, {"text": pa.string(), "label": pa.float64()})
    made = encode(features, [{"text": text, "label": score} for text, score in zip(firsts, scores, strict=True)])
    assert listed(made.columns["labels"]) == pytest.approx(scores)


def test_label_names() -> None:
    assert plain(letter_tokenizer()).label_names is None
    assert plain(letter_tokenizer(), labels=["x", "y"]).label_names == ("x", "y")


@pytest.mark.parametrize(
    ("bad", "type_"),
    [
        ({"text": None, "label": "x"}, "NullText"),
        ({"text": 3, "label": "x"}, "WrongType"),
        ({"text": b"ab", "label": "x"}, "WrongType"),
        ({"text": "a\ud800", "label": "x"}, "InvalidText"),
        ({"text": "a\x00", "label": "x"}, "InvalidText"),
        ({"text": " \n", "label": "x"}, "EmptyText"),
        ({"text": "a" * 41, "label": "x"}, "TextTooLong"),
        ({"label": "x"}, "MissingColumn"),
        ({"text": "a"}, "MissingColumn"),
        ({"text": "a", "label": None}, "NullLabel"),
        ({"text": "a", "label": 1}, "WrongType"),
        ({"text": "a", "label": "z"}, "UnknownLabel"),
        ({"text": "PANIC", "label": "x"}, "TokenizerFailure"),
        ({"text": "\u200b\x01", "label": "x"}, "EmptyText"),
    ],
)
@pytest.mark.parametrize("padding", ["none", "max_length"])
def test_a_bad_row_fails_alone(bad: dict[str, Any], type_: str, padding: str) -> None:
    features = plain(_without_special_tokens(), 8, labels=["x", "y"], max_chars=40, padding=padding)
    features._encoder._backend = Panicking(features._encoder._backend)
    assert fails(features, GOOD, bad)[0] == type_


def test_rows_that_lose_text_are_named() -> None:
    features = plain(letter_tokenizer(), 8, {"text": pa.string()}, max_chars=40, over_max_chars="truncate")
    rows = [{"text": text} for text in ("a b", "a" * 7, "a" + " " * 50 + "b", "", "a" * 6)]
    made = encode(features, rows)
    assert made.truncated == (1, 2)
    assert set(made.errors) == {3}


def test_a_tokenizer_without_a_backend() -> None:
    rows = [{"text": text, "label": "x"} for text in TEXTS]
    for options in ({}, {"padding": "max_length"}):
        fast, slow = (
            encode(plain(each, 9, **options), rows) for each in (letter_tokenizer(), Slow(letter_tokenizer()))
        )
        assert plainly(slow) == plainly(fast)
        assert slow.truncated == fast.truncated


def test_no_rows() -> None:
    made = encode(plain(letter_tokenizer(), 8, padding="max_length"), [])
    assert plainly(made) == {"input_ids": [], "attention_mask": [], "labels": []}
    assert set(encode(plain(letter_tokenizer()), [{"text": ""}]).errors) == {0}


def test_padding_that_cannot_be() -> None:
    with pytest.raises(SpecError, match="needs max_length"):
        plain(letter_tokenizer(), padding="max_length")
    tokenizer = letter_tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(SpecError, match="no padding token"):
        plain(tokenizer, 8, padding="max_length")


def _without_special_tokens() -> Any:
    """A tokenizer under which a text can have no tokens at all."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = letter_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    return tokenizer
