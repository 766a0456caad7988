"""What the tests of modes share: rows of the shared data, examples as plain lists, and what a bad row must not do."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from hfray.tasks.features.base import Features
from hfray.types import Column, Examples, Ragged


class Panic(BaseException):
    """What a Rust panic is to Python: no Exception."""


class Panicking:
    """A tokenizer's backend that panics over one word."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    @classmethod
    def from_str(cls, text: str) -> Panicking:
        return cls(Tokenizer.from_str(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode_batch_fast(self, inputs: Sequence[Any], **settings: Any) -> Any:
        return self._checked(self._backend.encode_batch_fast, inputs, **settings)

    def encode_batch(self, inputs: Sequence[Any], **settings: Any) -> Any:
        return self._checked(self._backend.encode_batch, inputs, **settings)

    def _checked(self, encode: Any, inputs: Sequence[Any], **settings: Any) -> Any:
        if "PANIC" in str(inputs):
            raise Panic("index out of bounds: the len is 1")
        return encode(inputs, **settings)


class Slow:
    """A tokenizer without a Rust backend."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.model_input_names = tokenizer.model_input_names
        self.padding_side = tokenizer.padding_side
        self.pad_token_id = tokenizer.pad_token_id
        self.pad_token_type_id = tokenizer.pad_token_type_id

    def __call__(self, *args: Any, **settings: Any) -> Any:
        return self._tokenizer(*args, **settings)


def listed(column: Column) -> list[Any]:
    """A column as one plain value per example."""
    if isinstance(column, Ragged):
        return [column[index].tolist() for index in range(len(column))]
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def plainly(examples: Examples) -> dict[str, list[Any]]:
    return {name: listed(column) for name, column in examples.columns.items()}


def encode(features: Features, rows: Sequence[dict[str, Any]]) -> Examples:
    """The examples, after a look at what every mode promises of them."""
    examples = features.encode(rows)
    schema = features.schema()
    assert list(examples.columns) == schema.names
    made = examples.rows.tolist()
    assert examples.rows.dtype == np.int64
    assert made == sorted(made)
    assert set(made) | set(examples.errors) == set(range(len(rows)))
    assert not set(made) & set(examples.errors)
    assert set(examples.truncated) <= set(made)
    for name, column in examples.columns.items():
        assert len(column) == len(made)
        type_ = schema.field(name).type
        assert pa.array(listed(column), type_).type == type_
        values = column.values if isinstance(column, Ragged) else column
        if isinstance(values, np.ndarray):
            wanted = np.float32 if "float" in str(type_) else np.int32
            assert values.dtype == wanted, name
    return examples


def fails(features: Features, good: Sequence[dict[str, Any]], bad: dict[str, Any]) -> tuple[str, str]:
    """The type and message of a bad row's error, after a look at its neighbours: they are as without it, and without a
    row that has no columns at all."""
    without, among = encode(features, good), encode(features, [{}, good[0], bad, *good[1:]])
    assert set(among.errors) == {0, 2}
    assert plainly(among) == plainly(without)
    assert among.rows.tolist() == [row + 1 + (row > 0) for row in without.rows.tolist()]
    assert among.truncated == tuple(row + 1 + (row > 0) for row in without.truncated)
    return among.errors[2].type, among.errors[2].message


def mapped(columns: dict[str, Any], function: Any) -> dict[str, list[Any]]:
    """What `datasets` makes of the columns by `map(batched=True)`."""
    import datasets

    datasets.disable_progress_bars()
    data = datasets.Dataset.from_dict(columns)
    made = data.map(function, batched=True, remove_columns=data.column_names, load_from_cache_file=False)
    return {name: made[name][:] for name in made.column_names}


@lru_cache
def banking77(shared_data: Path, split: str = "test") -> tuple[list[str], list[str]]:
    """Texts and categories."""
    with (shared_data / "banking77" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["category"] for row in rows]


@lru_cache
def stsb(shared_data: Path) -> tuple[list[str], list[str], list[float]]:
    """Two sentences and a score from 0 to 5."""
    with (shared_data / "stsb_en" / "stsb-en-dev.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return [row[0] for row in rows], [row[1] for row in rows], [float(row[2]) for row in rows]


@lru_cache
def squad(shared_data: Path, file: str) -> list[dict[str, Any]]:
    """Rows of a file of SQuAD's format, as the data set has them."""
    return [
        {
            "id": question["id"],
            "question": question["question"],
            "context": paragraph["context"],
            "answers": {
                "text": [answer["text"] for answer in question["answers"]],
                "answer_start": [answer["answer_start"] for answer in question["answers"]],
            },
        }
        for article in json.loads((shared_data / file).read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


@lru_cache
def wnut17(shared_data: Path, split: str = "dev") -> list[tuple[list[str], list[str]]]:
    """Words and tags of each sentence."""
    text = (shared_data / "wnut17" / f"{split}.conll").read_text(encoding="utf-8")
    sentences = []
    for block in text.split("\n\n"):
        pairs = [line.split("\t") for line in block.split("\n") if "\t" in line]
        if pairs:
            sentences.append(([pair[0] for pair in pairs], [pair[1] for pair in pairs]))
    return sentences


@lru_cache
def scitldr(shared_data: Path) -> tuple[list[str], list[str]]:
    """Abstracts and summaries."""
    lines = (shared_data / "scitldr_a" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [" ".join(row["source"]) for row in rows], [row["target"][0] for row in rows]
