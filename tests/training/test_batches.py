"""Micro-batches: the arrays of Transformers' own collators, and what has no collator there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import DataCollatorForSeq2Seq, DataCollatorForTokenClassification, DataCollatorWithPadding

from hfray.data.tokens import Tokens
from hfray.errors import SpecError
from hfray.models.packed_attention import packed_inputs
from hfray.spec.train import MODES_OF_TASK
from hfray.training.batches import (
    Causal,
    Masked,
    Packed,
    Padding,
    Sequences,
    Targets,
    TokenLabels,
    collator_for,
    columns_read,
    to_tensors,
)
from hfray.training.masking import Masking
from hfray.training.tokens import Example
from tests.models.support import letter_tokenizer
from tests.training.support import FACTS

ROWS = ([2, 10, 11, 12, 3], [2, 20, 3], [2, 30, 31, 32, 33, 34, 3])
MASKING = Masking(4, 100, (0, 2, 3, 4))


def made(**columns: Any) -> list[Example]:
    """Examples of columns; a list is one as a part holds it."""
    count = len(next(iter(columns.values())))
    return [
        Example(
            i, {name: np.asarray(values[i], np.int32 if name != "labels" else None) for name, values in columns.items()}
        )
        for i in range(count)
    ]


def same(ours: dict[str, Any], theirs: Any) -> bool:
    return sorted(ours) == sorted(theirs) and all(
        torch.equal(value, theirs[name]) and value.dtype == theirs[name].dtype
        for name, value in to_tensors(ours).items()
    )


@pytest.mark.parametrize("multiple_of", [1, 8])
@pytest.mark.parametrize("labels", [[1, 0, 2], [0.5, 1.0, -2.0], [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]])
def test_sequences_are_those_of_transformers(labels: list[Any], multiple_of: int) -> None:
    theirs = DataCollatorWithPadding(letter_tokenizer(), pad_to_multiple_of=multiple_of)(
        [
            {"input_ids": ids, "token_type_ids": [0] * len(ids), "labels": label}
            for ids, label in zip(ROWS, labels, strict=True)
        ]
    )
    examples = made(
        input_ids=ROWS,
        token_type_ids=[[0] * len(ids) for ids in ROWS],
        labels=np.array(labels, np.float32 if labels != [1, 0, 2] else np.int32),
    )
    assert same(Sequences(Padding(multiple_of=multiple_of))(examples), theirs)


def test_labels_of_tokens_are_those_of_transformers() -> None:
    labels = [[-100, *ids[1:-1], -100] for ids in ROWS]
    theirs = DataCollatorForTokenClassification(letter_tokenizer())(
        [{"input_ids": ids, "labels": each} for ids, each in zip(ROWS, labels, strict=True)]
    )
    assert same(TokenLabels(Padding())(made(input_ids=ROWS, labels=labels)), theirs)


def test_targets_are_those_of_transformers() -> None:
    labels = [[5, 6], [7, 8, 9], [5]]
    theirs = DataCollatorForSeq2Seq(letter_tokenizer())(
        [{"input_ids": ids, "labels": each} for ids, each in zip(ROWS, labels, strict=True)]
    )
    assert same(Targets(Padding())(made(input_ids=ROWS, labels=labels)), theirs)


def test_windows_keep_the_places_of_answers() -> None:
    batch = Sequences(Padding())(made(input_ids=ROWS, start_positions=[1, 0, 4], end_positions=[2, 0, 5]))
    assert batch["start_positions"].tolist() == [1, 0, 4]
    assert batch["end_positions"].dtype == np.int64


def test_a_length_is_rounded_as_far_as_the_model_goes() -> None:
    assert Padding(multiple_of=8).length([3, 9]) == 16
    assert Padding(multiple_of=8, max_length=12).length([3, 9]) == 12
    assert Padding(multiple_of=8, max_length=12).length([13]) == 13
    assert Padding().length([3, 9]) == 9


def test_padding_made_before_is_kept() -> None:
    ids = [[5, 6, 0, 0], [7, 0, 0, 0]]
    masks = [[1, 1, 0, 0], [1, 0, 0, 0]]
    batch = Causal(Padding())(made(input_ids=ids, attention_mask=masks))
    assert batch["attention_mask"].tolist() == masks
    assert batch["labels"].tolist() == [[5, 6, -100, -100], [7, -100, -100, -100]]


def test_a_text_is_its_own_label() -> None:
    batch = Causal(Padding(pad_token_id=9))(made(input_ids=[[9, 5], [6, 9, 9]]))
    assert batch["input_ids"].tolist() == [[9, 5, 9], [6, 9, 9]]
    assert batch["labels"].tolist() == [[9, 5, -100], [6, 9, 9]]  # a padding token inside of a text is one to learn


def test_masks_do_not_depend_on_the_batch() -> None:
    collate = Masked(Padding(), MASKING)
    examples = made(input_ids=ROWS)
    together = collate(examples)
    for place, example in enumerate(examples):
        alone = collate([example])
        length = len(ROWS[place])
        for name in ("input_ids", "labels"):
            assert together[name][place, :length].tolist() == alone[name][0].tolist()
        assert together["labels"][place, length:].tolist() == [-100] * (7 - length)
    later = collate([Example(each.number, each.columns, epoch=1) for each in examples])
    assert later["labels"].tolist() != together["labels"].tolist()


def test_packed_sequences_go_without_a_mask() -> None:
    batch = Packed()(
        made(
            input_ids=[[5, 6, 7], [8, 9, 0]],
            position_ids=[[0, 1, 0], [0, 1, 0]],
            labels=[[-100, 6, -100], [-100, 9, -100]],
        )
    )
    assert sorted(batch) == ["input_ids", "labels", "position_ids"]
    tensors = to_tensors(batch)
    assert {each.dtype for each in tensors.values()} == {torch.int64}
    assert "attention_mask" not in packed_inputs(tensors["position_ids"], "position_ids", torch.float32)


def tokens(mode: str, *columns: str, packed: bool = False) -> Tokens:
    return Tokens(
        fingerprint="f",
        source="s",
        tokenizer=FACTS,
        mode=mode,
        task=None,
        max_length=None,
        packed=packed,
        columns=dict.fromkeys(("input_ids", *columns), "list<int32>"),
        splits=(),
    )


@pytest.mark.parametrize(
    ("mode", "columns", "task", "expected"),
    [
        ("plain", ("labels",), "text-classification", Sequences),
        ("pair", ("token_type_ids", "labels"), "text-classification", Sequences),
        ("pair", ("labels",), "text-ranking", Sequences),
        ("plain", (), "fill-mask", Masked),
        ("pair", (), "fill-mask", Masked),
        ("plain", (), "text-generation", Causal),
        ("windows", ("start_positions", "end_positions", "offset_mapping"), "question-answering", Sequences),
        ("words", ("labels",), "token-classification", TokenLabels),
        ("seq2seq", ("labels",), "translation", Targets),
        ("seq2seq", ("labels",), "summarization", Targets),
        ("chat", ("labels",), "text-generation", TokenLabels),
    ],
)
def test_each_task_has_its_batches(mode: str, columns: tuple[str, ...], task: str, expected: type) -> None:
    found = collator_for(tokens(mode, *columns), task, Padding(), MASKING)
    assert isinstance(found, expected)
    assert "offset_mapping" not in columns_read(found, tokens(mode, *columns))


def test_what_a_job_may_say_has_batches() -> None:
    columns = {"windows": ("start_positions", "end_positions"), "packed": ("position_ids", "labels")}
    for task, modes in MODES_OF_TASK.items():
        for mode in modes:
            folder = tokens(mode, *columns.get(mode, ("labels",)), packed=mode == "packed")
            assert collator_for(folder, task, Padding(), MASKING)


def test_packed_batches() -> None:
    folder = tokens("packed", "position_ids", "labels", packed=True)
    assert isinstance(collator_for(folder, "text-generation", Padding()), Packed)
    assert columns_read(Packed(), folder) == ("input_ids", "position_ids", "labels")
    with pytest.raises(SpecError, match="packed features of mode packed, which train text-generation"):
        collator_for(folder, "fill-mask", Padding(), MASKING)


@pytest.mark.parametrize(
    ("folder", "task", "message"),
    [
        (
            tokens("words", "labels"),
            "text-classification",
            "mode words, which train token-classification; tokenise for",
        ),
        (tokens("plain"), "text-classification", r"the tokens have no labels \(columns input_ids\); .* column label"),
        (tokens("windows"), "question-answering", "tokenise rows that have a column answers"),
        (tokens("plain"), "fill-mask", "no mask token"),
        (tokens("chat", "chosen_input_ids"), "text-generation", "preference pairs"),
        (tokens("seq2seq", "labels"), "text-generation", "summarization and translation and text2text"),
        (tokens("words", "labels"), "fill-mask", "no mask token"),
    ],
)
def test_tokens_for_another_task_are_refused(folder: Tokens, task: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        collator_for(folder, task, Padding())
