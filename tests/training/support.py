"""Tokenised folders for tests, written with the pieces that the tokenize job writes them with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from hfray.data.layout import Layout
from hfray.data.ledger import Ledger, PartEntry
from hfray.data.token_parts import encode_tokens, to_table
from hfray.data.tokens import TOKENS_FILE, Tokens, TokenSplit
from hfray.models.tokenizers import TokenizerFacts
from hfray.types import Column, Ragged

FACTS = TokenizerFacts("letters", "f" * 64, None, 100, 0, 3, None)
IDS = pa.list_(pa.int32())
PLAIN = pa.schema([("input_ids", IDS), ("labels", pa.int32())])


def plain_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Examples of 1 to 12 tokens; the label is the example's number."""
    rng = np.random.default_rng(seed)
    return [{"input_ids": rng.integers(5, 100, rng.integers(1, 13)).tolist(), "labels": i} for i in range(count)]


def write_tokens(
    path: str,
    splits: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    schema: pa.Schema = PLAIN,
    *,
    format: Any = "parquet",
    **facts: Any,
) -> str:
    """A finished folder. splits: by name, the rows of each part."""
    layout = Layout("data", format, tuple((name, len(parts)) for name, parts in splits.items()))
    ledger = Ledger(path, format, "fp", layout=layout)
    ledger.open({"fingerprint": "fp"})
    entries = []
    for number, rows in enumerate(rows for parts in splits.values() for rows in parts):
        table = to_table({field.name: _column(rows, field) for field in schema}, schema)
        data = encode_tokens(table, format, {})
        ledger.commit_part(number, data)
        entries.append(PartEntry(number, len(rows), 0, len(data), hashlib.sha256(data).hexdigest()))
    tokens = Tokens(
        fingerprint="fp",
        source="s",
        tokenizer=FACTS,
        **{"mode": "plain", "task": None, "max_length": None, "packed": False} | facts,
        columns={field.name: str(field.type) for field in schema},
        splits=tuple(
            TokenSplit(name=name, parts=len(parts), examples=sum(map(len, parts)), tokens=0)
            for name, parts in splits.items()
        ),
    )
    ledger.write(TOKENS_FILE, tokens.model_dump_json().encode())
    ledger.write_success("fp", entries, {}, {})
    return path


def _column(rows: Sequence[Mapping[str, Any]], field: pa.Field) -> Column:
    values = [row[field.name] for row in rows]
    if pa.types.is_list(field.type):
        if pa.types.is_list(field.type.value_type) or pa.types.is_fixed_size_list(field.type.value_type):
            flat = np.array([pair for value in values for pair in value], np.int32).reshape(-1, 2)
            return Ragged(flat, _offsets(values))
        return Ragged.of(values, field.type.value_type.to_pandas_dtype())
    return values


def _offsets(values: Sequence[Any]) -> Any:
    return np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int64)
