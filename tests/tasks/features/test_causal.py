"""Packed documents have the tokenizer's own tokens, each once, in sequences that are full."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import GPT2Tokenizer

from hfray.errors import SpecError
from hfray.tasks.features.causal import Packed
from hfray.tasks.flat import FlatEncoder
from hfray.types import Examples
from tests.conftest import SHARED_DATA
from tests.models.support import letter_tokenizer
from tests.tasks.generation_support import tokenizer_of

PRESENT = {"text": pa.string()}


@lru_cache
def gpt2() -> Any:
    """GPT-2's tokenizer with a token of its own for padding, so that no padding looks like a document."""
    folder = SHARED_DATA / "tokenizers" / "gpt2"
    if not folder.is_dir():
        pytest.skip("no shared data: tokenizers/gpt2")
    return GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), pad_token="<pad>")


def packed(tokenizer: Any, max_length: int | None = 64, **options: Any) -> Packed:
    return Packed(Packed.Options(**options), tokenizer, max_length, PRESENT)


def texts_of(shared_data: Path, count: int | None = None) -> list[str]:
    """Questions with their answers, and abstracts."""
    texts = []
    for line in (shared_data / "gsm8k" / "train.jsonl").read_text("utf-8").splitlines()[:count]:
        row = json.loads(line)
        texts.append(f"{row['question']}\n{row['answer']}")
    for line in (shared_data / "scitldr_a" / "train.jsonl").read_text("utf-8").splitlines()[:count]:
        texts.append(" ".join(json.loads(line)["source"]))
    return texts


def rows_of(texts: list[Any]) -> list[dict[str, Any]]:
    return [{"text": text} for text in texts]


def encoded(features: Packed, texts: list[Any]) -> Examples:
    return features.encode(rows_of(texts))


def pieces_in(columns: Any, max_length: int) -> list[tuple[int, ...]]:
    """The pieces of documents in packed columns, told by their positions, the padding left out."""
    found = []
    for ids, positions, labels in zip(
        *(columns[name].values.reshape(-1, max_length) for name in ("input_ids", "position_ids", "labels")), strict=True
    ):
        starts = [*np.flatnonzero(positions == 0), max_length]
        for start, end in pairwise(starts):
            assert positions[start:end].tolist() == list(range(end - start))
            if (ids[start:end] == gpt2().pad_token_id).all():
                assert (labels[start:end] == -100).all()
                continue
            assert labels[start] == -100
            assert labels[start + 1 : end].tolist() == ids[start + 1 : end].tolist()
            found.append(tuple(ids[start:end].tolist()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("max_length", [64, 1024])
def test_each_document_is_packed_whole_with_the_tokens_of_the_tokenizer(shared_data: Path, max_length: int) -> None:
    texts = texts_of(shared_data, 300)
    features = packed(gpt2(), max_length)
    columns = features.pack(encoded(features, texts).columns)
    documents = [[*ids, gpt2().eos_token_id] for ids in gpt2()(texts)["input_ids"]]
    expected = Counter(
        tuple(document[start : start + max_length])
        for document in documents
        for start in range(0, len(document), max_length)
    )
    assert Counter(pieces_in(columns, max_length)) == expected
    assert any(len(document) > max_length for document in documents) is (max_length == 64)


@pytest.mark.slow
def test_concatenate_is_the_tutorials_group_texts_with_its_tail(shared_data: Path) -> None:
    texts = texts_of(shared_data, 200)
    block_size = 128
    features = packed(gpt2(), block_size, strategy="concatenate", append_eos=False)
    columns = features.pack(encoded(features, texts).columns)

    # https://huggingface.co/docs/transformers/tasks/language_modeling
    concatenated = list(chain(*gpt2()(texts)["input_ids"]))
    total_length = (len(concatenated) // block_size) * block_size
    blocks = [concatenated[i : i + block_size] for i in range(0, total_length, block_size)]

    sequences = columns["input_ids"].values.reshape(-1, block_size).tolist()
    tail = concatenated[total_length:]
    assert tail
    assert sequences == [*blocks, tail + [gpt2().pad_token_id] * (block_size - len(tail))]


@pytest.mark.slow
def test_sequences_of_2048_tokens_are_at_least_99_per_cent_full(shared_data: Path) -> None:
    features = packed(gpt2(), 2048)
    examples = encoded(features, texts_of(shared_data))
    ids = features.pack(examples.columns)["input_ids"]
    num_tokens = len(examples.columns["input_ids"].values)  # type: ignore[union-attr]
    assert num_tokens > 1_500_000
    assert num_tokens / len(ids.values) >= 0.99
    assert (ids.values != gpt2().pad_token_id).sum() == num_tokens


def test_a_bad_row_makes_no_document_and_disturbs_no_other() -> None:
    texts = ["one", None, 3, b"bytes", "\ud800", "nul \x00", "", "  \n", ["list"], "two", "x" * 30]
    features = packed(gpt2(), max_chars=20, over_max_chars="error")
    examples = features.encode([*rows_of(texts), {"other": "no text"}])
    assert {index: error.type for index, error in examples.errors.items()} == {
        1: "NullText",
        2: "WrongType",
        3: "WrongType",
        4: "InvalidText",
        5: "InvalidText",
        6: "EmptyText",
        7: "EmptyText",
        8: "WrongType",
        10: "TextTooLong",
        11: "MissingColumn",
    }
    assert examples.rows.tolist() == [0, 9]
    ids = examples.columns["input_ids"]
    assert [ids[index].tolist() for index in range(2)] == [
        [*gpt2()(text)["input_ids"], 50256] for text in ("one", "two")
    ]
    assert ids[0].dtype == np.int32
    assert features.schema() == pa.schema([("input_ids", pa.list_(pa.int32()))])
    assert features.packed_schema().names == list(features.pack(examples.columns))


def test_no_row_and_no_good_row_make_no_sequence() -> None:
    features = packed(gpt2())
    for rows in ([], [{"text": None}]):
        examples = features.encode(rows)
        assert len(examples.rows) == len(examples.columns["input_ids"]) == 0
        assert len(features.pack(examples.columns)["input_ids"]) == 0


@pytest.mark.slow
def test_a_text_over_max_chars_is_cut_or_split() -> None:
    text = "so many words " * 40
    whole = [*gpt2()(text)["input_ids"], gpt2().eos_token_id]
    split = encoded(packed(gpt2(), max_chars=50), ["a", text, "b"])
    assert split.columns["input_ids"][1].tolist() == whole
    assert split.truncated == ()
    cut = encoded(packed(gpt2(), max_chars=50, over_max_chars="truncate"), ["a", text, "b"])
    assert cut.columns["input_ids"][1].tolist() == [*gpt2()(text[:50])["input_ids"], gpt2().eos_token_id]
    assert cut.truncated == (1,)


@pytest.mark.slow
def test_a_text_that_no_proof_lets_split_fails_alone() -> None:
    tokenizer = tokenizer_of("phi-3-mini")
    examples = encoded(packed(tokenizer, max_chars=50), ["short", "so many words " * 40, "other"])
    assert examples.rows.tolist() == [0, 2]
    assert examples.errors[1].type == "TextTooLong"
    assert "max_chars 50" in examples.errors[1].message
    assert "no proof is known" in examples.errors[1].message


@pytest.mark.slow
def test_eos_comes_once() -> None:
    t5, phi = tokenizer_of("t5-small"), tokenizer_of("phi-3-mini")
    assert encoded(packed(t5), ["a b"]).columns["input_ids"][0].tolist() == t5("a b")["input_ids"]  # it adds </s>
    assert encoded(packed(phi), ["a b"]).columns["input_ids"][0].tolist() == [
        *phi("a b")["input_ids"],
        phi.eos_token_id,
    ]
    without = encoded(packed(phi, append_eos=False), ["a b"]).columns["input_ids"]
    assert without[0].tolist() == phi("a b")["input_ids"]


def test_many_long_texts_are_tokenised_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfray.tasks.features.causal.CALL_CHARS", 10)
    texts = ["one two", None, "three", "four", "five six seven eight", "nine"]
    calls: list[list[str]] = []
    encode_flat = FlatEncoder.encode_flat

    def counted(encoder: FlatEncoder, texts: list[str]) -> Any:
        calls.append(texts)
        return encode_flat(encoder, texts)

    monkeypatch.setattr(FlatEncoder, "encode_flat", counted)
    examples = encoded(packed(gpt2()), texts)
    assert [each for each in calls if each] == [["one two"], ["three", "four"], ["five six seven eight"], ["nine"]]
    assert examples.rows.tolist() == [0, 2, 3, 4, 5]
    good = [text for text in texts if text]
    assert [examples.columns["input_ids"][at].tolist() for at in range(5)] == [
        [*ids, 50256] for ids in gpt2()(good)["input_ids"]
    ]


def test_what_cannot_be_packed_is_an_error_of_the_spec() -> None:
    with pytest.raises(SpecError, match="mode packed needs max_length"):
        packed(gpt2(), None)
    with pytest.raises(SpecError, match=r"no end-of-sequence token.*append_eos: false"):
        packed(letter_tokenizer())
    letters = packed(letter_tokenizer(), append_eos=False)
    assert letters.pack(encoded(letters, ["a b"]).columns)["input_ids"].values[:5].tolist() == [
        *letter_tokenizer()("a b")["input_ids"],
        letter_tokenizer().pad_token_id,
    ]


def test_padding_is_a_document_of_its_own() -> None:
    features = packed(gpt2(), 8)
    columns = features.pack(encoded(features, ["a b c"]).columns)
    pad = gpt2().pad_token_id
    assert columns["input_ids"].values.tolist() == [*gpt2()("a b c")["input_ids"], 50256, *[pad] * 4]
    assert columns["position_ids"].values.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert columns["labels"].values.tolist() == [-100, *gpt2()("a b c")["input_ids"][1:], 50256, *[-100] * 4]
