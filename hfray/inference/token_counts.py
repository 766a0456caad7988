"""What is counted of token parts, and the receipts made of it. Knows Arrow columns; not where they come from."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hfray.inference.receipt import Receipt, count_lengths
from hfray.types import Array

TOKENS = "input_ids"
"""The column, or the ending of the columns, that hold an example's tokens."""


@dataclass(slots=True)
class Counted:
    """What a receipt says of a part beside its bytes; all of it stands in the part's own metadata too, so that a part
    whose receipt was lost tells the same."""

    rows: int = 0
    """Examples in the part."""
    failed: int = 0
    documents: int = 0
    """Source rows that made examples, or examples before they were packed."""
    tokens: int = 0
    padded_tokens: int = 0
    truncated: int = 0
    lengths: tuple[int, ...] = ()
    error_types: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def as_facts(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Counted:
        return cls(**{**facts, "lengths": tuple(facts["lengths"]), "names": tuple(facts["names"])})

    def receipt(self, number: int, data: bytes, started_at: float, *, adopted: bool = False) -> Receipt:
        """Of a part with these bytes."""
        now = time.time()
        return Receipt(
            shard=number, rows=self.rows, failed=self.failed, size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(), tokens=self.tokens, padded_tokens=self.padded_tokens,
            busy_s=0.0 if adopted else now - started_at, started_at=started_at, ended_at=now, worker=worker_name(),
            adopted=adopted, truncated=self.truncated, documents=self.documents, lengths=self.lengths,
            error_types=self.error_types, left_out=self.left_out, names=self.names,
        )  # fmt: skip


def worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def lengths_of(table: pa.Table) -> Array:
    """int64 [num_rows]: tokens of each example, in all its token columns together."""
    total = np.zeros(table.num_rows, np.int64)
    for name in table.column_names:
        if name.endswith(TOKENS):
            total += pc.list_value_length(table[name]).to_numpy().astype(np.int64)
    return total


def count_tokens(counted: Counted, lengths: Array) -> None:
    """Adds the number and the histogram of example lengths."""
    counted.tokens = int(lengths.sum())
    counted.lengths = count_lengths(lengths)
