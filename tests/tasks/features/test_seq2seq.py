"""Texts and targets: what the tokenizer gives for `text` and `text_target`, languages included; bad rows fail alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from transformers import M2M100Tokenizer, MBart50Tokenizer, NllbTokenizer

from hfray.errors import SpecError
from hfray.tasks.features.seq2seq import Seq2Seq
from tests.models.support import letter_tokenizer
from tests.tasks.features.support import Panicking, encode, fails, listed, mapped, plainly, scitldr
from tests.tasks.generation_support import tokenizer_of
from tests.tasks.test_translation import SENTENCES, marian_tokenizer, pieces_of, sentence_model

__all__ = ["sentence_model"]

PRESENT = {"text": pa.string(), "target": pa.string()}
GOOD = [{"text": "ab c", "target": "d"}, {"text": "e" * 30, "target": "f" * 30}, {"text": "g", "target": "h i"}]


def seq2seq(tokenizer: Any, max_length: int | None = None, **options: Any) -> Seq2Seq:
    return Seq2Seq(Seq2Seq.Options(**options), tokenizer, max_length, PRESENT)


def columns_of(features: Seq2Seq, text: str, target: str) -> tuple[list[int], list[int]]:
    made = encode(features, [{"text": text, "target": target}])
    assert not made.errors
    return listed(made.columns["input_ids"])[0], listed(made.columns["labels"])[0]


@pytest.mark.slow
def test_scitldr_as_datasets_maps_it(shared_data: Path) -> None:
    tokenizer = tokenizer_of("t5-small")
    texts, targets = scitldr(shared_data)

    def preprocess(examples: Any) -> Any:
        """That of https://huggingface.co/docs/transformers/tasks/summarization."""
        inputs = ["summarize: " + document for document in examples["text"]]
        model_inputs = tokenizer(inputs, max_length=200, truncation=True)
        labels = tokenizer(text_target=examples["target"], max_length=32, truncation=True)
        return {"input_ids": model_inputs["input_ids"], "labels": labels["input_ids"]}

    wanted = mapped({"text": texts, "target": targets}, preprocess)
    rows = [{"text": text, "target": target} for text, target in zip(texts, targets, strict=True)]
    made = encode(seq2seq(tokenizer, 200, prefix="summarize: ", max_target_length=32), rows)
    assert plainly(made) == wanted
    assert {ids[-1] for ids in wanted["labels"]} == {tokenizer.eos_token_id}
    longest = zip(
        tokenizer(["summarize: " + text for text in texts]).input_ids, tokenizer(targets).input_ids, strict=True
    )
    cut = [row for row, (first, second) in enumerate(longest) if len(first) > 200 or len(second) > 32]
    assert list(made.truncated) == cut


@pytest.mark.slow
def test_t5_is_told_in_words() -> None:
    tokenizer = tokenizer_of("t5-small")
    wanted = tokenizer("translate English to German: Hello").input_ids, tokenizer(text_target="Hallo").input_ids
    assert columns_of(seq2seq(tokenizer, source_language="en", target_language="German"), "Hello", "Hallo") == wanted
    ids, _ = columns_of(seq2seq(tokenizer, source_language="en", target_language="de", prefix=""), "Hello", "Hallo")
    assert ids == tokenizer("Hello").input_ids
    assert columns_of(seq2seq(tokenizer), "Hello", "Hallo")[0] == ids
    with pytest.raises(SpecError, match="set both source_language and target_language, or prefix"):
        seq2seq(tokenizer, target_language="de")
    with pytest.raises(SpecError, match="mode seq2seq: target_language 'Germn' is no language"):
        seq2seq(tokenizer, source_language="en", target_language="Germn")


def nllb() -> Any:
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "▁": 4, "a": 5, "b": 6}
    return NllbTokenizer(vocab=vocabulary, merges=[])


@pytest.mark.parametrize(
    ("make", "source", "target"),
    [(nllb, "eng_Latn", "fra_Latn"), (MBart50Tokenizer, "ro_RO", "en_XX")],
)
def test_each_side_has_its_language(make: Any, source: str, target: str) -> None:
    other = make()
    other.src_lang, other.tgt_lang = source, target
    wanted = other("ab").input_ids, other(text_target="ba").input_ids
    assert wanted[0][0] != wanted[1][0]
    tokenizer = make()
    features = seq2seq(tokenizer, source_language=source, target_language=target)
    for _ in range(2):
        assert columns_of(features, "ab", "ba") == wanted
    assert tokenizer.backend_tokenizer.encode("ab").ids == wanted[0]  # the side that it is left on
    with pytest.raises(SpecError, match="set target_language to one of its codes"):
        seq2seq(make(), source_language=source)
    with pytest.raises(SpecError, match="source_language 'xx' is no language code of the tokenizer"):
        seq2seq(make(), source_language="xx", target_language=target)


def test_languages_without_a_fast_tokenizer(sentence_model: Path) -> None:
    path = sentence_model.parent / "m2m.json"
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *pieces_of(sentence_model)]
    path.write_text(json.dumps({token: index for index, token in enumerate(tokens)}), encoding="utf-8")
    tokenizer = M2M100Tokenizer(vocab_file=str(path), spm_file=str(sentence_model))
    features = seq2seq(tokenizer, 8, source_language="en", target_language="fr", max_target_length=6)
    for _ in range(2):
        ids, labels = columns_of(features, SENTENCES[0], SENTENCES[2])
        assert (ids[0], labels[0]) == (tokenizer.get_lang_id("en"), tokenizer.get_lang_id("fr"))
        assert (len(ids), len(labels)) == (8, 6)


def test_marian(sentence_model: Path) -> None:
    tokenizer = marian_tokenizer(sentence_model, ">>fra<<", ">>deu<<")
    wanted = tokenizer(f">>fra<< {SENTENCES[0]}").input_ids, tokenizer(text_target=SENTENCES[2]).input_ids
    assert columns_of(seq2seq(tokenizer, target_language="fra"), SENTENCES[0], SENTENCES[2]) == wanted
    assert wanted[1][-1] == tokenizer.eos_token_id
    with pytest.raises(
        SpecError, match="target_language 'fr' is no language code of the tokenizer; did you mean 'fra'"
    ):
        seq2seq(tokenizer, target_language="fr")


def test_a_tokenizer_without_languages() -> None:
    with pytest.raises(SpecError, match="no language codes: leave out source_language"):
        seq2seq(letter_tokenizer(), source_language="en", target_language="de")
    features = seq2seq(letter_tokenizer(), source_language="en", target_language="de", prefix="de ")
    assert columns_of(features, "a", "b")[0] == letter_tokenizer()("de a").input_ids


def test_the_limit_of_targets_is_that_of_texts_by_default() -> None:
    made = encode(seq2seq(letter_tokenizer(), 8), GOOD)
    assert [len(ids) for ids in listed(made.columns["labels"])] == [3, 8, 4]
    assert made.truncated == (1,)
    assert encode(seq2seq(letter_tokenizer(), 40, max_target_length=8), GOOD).truncated == (1,)


@pytest.mark.parametrize(
    ("changes", "type_", "message"),
    [
        ({"text": None}, "NullText", "text is null"),
        ({"target": None}, "NullText", "target is null"),
        ({"target": 3}, "WrongType", "target is int"),
        ({"target": " "}, "EmptyText", "target is empty"),
        ({"target": "a\ud800"}, "InvalidText", "lone surrogate"),
        ({"text": "a\x00"}, "InvalidText", "NUL"),
        ({"target": "a" * 41}, "TextTooLong", "target has 41 characters"),
        ({"text": "PANIC"}, "TokenizerFailure", "index out of bounds"),
        ({"target": "PANIC"}, "TokenizerFailure", "index out of bounds"),
    ],
)
def test_a_bad_row_fails_alone(changes: dict[str, Any], type_: str, message: str) -> None:
    features = seq2seq(letter_tokenizer(), 20, max_chars=40)
    for encoder in (features._encoder, features._target_encoder):
        encoder._backend = Panicking(encoder._backend)
    found, text = fails(features, GOOD, GOOD[0] | changes)
    assert found == type_
    assert message in text


def test_a_missing_column() -> None:
    assert fails(seq2seq(letter_tokenizer()), GOOD, {"text": "a"}) == ("MissingColumn", "column 'target' is missing")


def test_no_rows() -> None:
    assert plainly(encode(seq2seq(letter_tokenizer()), [])) == {"input_ids": [], "labels": []}
