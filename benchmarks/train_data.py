"""What the training benchmarks learn from: files of the shared data as rows, and tokenised folders read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.texts import DATA

IGNORED = -100


def conll(path: Path) -> Iterator[dict[str, Any]]:
    """Sentences: words and their tags, as token classification reads them."""
    for block in path.read_text("utf-8").strip().split("\n\n"):
        pairs = [line.split("\t") for line in block.splitlines() if line.strip()]
        if pairs:
            yield {"text": [word for word, _ in pairs], "tags": [tag for _, tag in pairs]}


def squad() -> Iterator[dict[str, Any]]:
    """In the order of the file, where the questions of a paragraph stand together."""
    for article in json.loads((DATA / "squad_v1.1/dev-v1.1.json").read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                found = question["answers"]
                yield {
                    "question": question["question"],
                    "context": paragraph["context"],
                    "answers": {
                        "text": [each["text"] for each in found],
                        "answer_start": [each["answer_start"] for each in found],
                    },
                }


def paragraphs(path: Path, between: str = "\n") -> list[str]:
    return [each for each in path.read_text("utf-8").split(between) if each.strip()]


def token_documents(folder: Path) -> Iterator[list[int]]:
    """The documents in packed sequences, in order: positions begin anew where one does, and once more where the
    padding does, which has no labels."""
    import pyarrow.parquet as pq

    for part in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(part, columns=["input_ids", "position_ids", "labels"]).to_pylist():
            starts = [place for place, position in enumerate(row["position_ids"]) if position == 0]
            for start, end in pairwise([*starts, len(row["input_ids"])]):
                if any(label != IGNORED for label in row["labels"][start:end]):
                    yield row["input_ids"][start:end]


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
