"""What a worker says about one committed shard. Knows plain numbers; not Ray, tensors or files.

A receipt is the row that comes back through Ray Data for each shard, so it is small whatever the shard holds; `totals`
adds them up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache

import numpy as np
from pydantic import TypeAdapter, ValidationError

from hfray.errors import DataError

LENGTH_BINS = (
    8,
    16,
    24,
    32,
    48,
    64,
    96,
    128,
    192,
    256,
    384,
    512,
    768,
    1024,
    1536,
    2048,
    3072,
    4096,
    8192,
    16384,
    32768,
)
"""Largest token count of each bin, inclusive; one more bin, without an end, follows."""

NUM_SCORE_BINS = 20
"""Equal bins over 0..1; a score of exactly 1 counts in the last."""

MAX_LABELS = 50
"""Labels that one receipt counts apart."""


def count_lengths(lengths: Iterable[int]) -> tuple[int, ...]:
    """Token counts of items -> how many fall into each of the len(LENGTH_BINS) + 1 bins."""
    bins = np.searchsorted(LENGTH_BINS, np.fromiter(lengths, dtype=np.int64), side="left")
    return tuple(np.bincount(bins, minlength=len(LENGTH_BINS) + 1).tolist())


def count_scores(scores: Iterable[float]) -> tuple[int, ...]:
    """Scores -> how many fall into each of NUM_SCORE_BINS; () without any.

    A score outside 0..1 counts in the nearest bin, NaN nowhere.
    """
    values = np.fromiter(scores, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return ()
    # Rounded first: 0.15 / 0.05 is 2.9999999999999996 in floating point, and belongs to bin 3.
    bins = np.floor(np.round(np.clip(values, 0, 1) * NUM_SCORE_BINS, 9)).astype(np.int64)
    return tuple(np.bincount(np.minimum(bins, NUM_SCORE_BINS - 1), minlength=NUM_SCORE_BINS).tolist())


def count_labels(labels: Iterable[str]) -> dict[str, int]:
    """The MAX_LABELS most frequent labels with their counts, most frequent first, all others together under ""."""
    counts: dict[str, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    clean: dict[str, int] = {}
    for label, count in counts.items():  # a lone surrogate in a model's labels would not survive JSON
        key = label.encode("utf-8", "replace").decode("utf-8")
        clean[key] = clean.get(key, 0) + count
    return most_frequent(clean, MAX_LABELS)


def most_frequent(counts: Mapping[str, int], limit: int) -> dict[str, int]:
    """The `limit` largest counts, largest first, ties by name; the others summed under ""."""
    named = sorted(((name, count) for name, count in counts.items() if name), key=lambda pair: (-pair[1], pair[0]))
    rest = counts.get("", 0) + sum(count for _, count in named[limit:])
    return dict(named[:limit]) | ({"": rest} if rest else {})


@dataclass(frozen=True, slots=True)
class Tick:
    """Progress between two receipts; the numbers are what was added since the last tick of this worker."""

    rows: int
    failed: int
    tokens: int


@dataclass(frozen=True, slots=True)
class ShardFailure:
    """A shard whose file cannot be read; the others go on."""

    shard: int
    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """One committed shard."""

    shard: int
    rows: int
    failed: int
    size_bytes: int
    """Of the part's file."""
    sha256: str
    """Of the part's file, in hexadecimal."""
    tokens: int = 0
    """Model positions, padding apart."""
    padded_tokens: int = 0
    """Model positions computed, padding included."""
    generated_tokens: int = 0
    busy_s: float = 0.0
    """Seconds in which the model's thread worked on this shard."""
    started_at: float = 0.0
    """Unix time."""
    ended_at: float = 0.0
    """Unix time of the commit."""
    worker: str = ""
    adopted: bool = False
    """The part was found, not computed."""
    truncated: int = 0
    """Rows computed whose model input was cut, its text being longer than max_length or max_chars."""
    lengths: tuple[int, ...] = ()
    """As `count_lengths` makes it."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """As `count_labels` makes it."""
    scores: tuple[int, ...] = ()
    """As `count_scores` makes it."""
    error_types: Mapping[str, int] = field(default_factory=dict)
    """Failed rows by `RowError.type`."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Source rows that are not in the part, by the step that took them away ("sample", "where", "deduplicate")."""
    documents: int = 0
    """Tokenising: source rows that made examples, or examples that were packed."""
    names: tuple[str, ...] = ()
    """Tokenising: names of labels in the shard, where the job looks for all there are."""

    def to_json(self) -> str:
        """One compact line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Receipt:
        """Raises DataError for anything that `to_json` did not write; keys of a later version are ignored."""
        try:
            return _adapter().validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(f"not a receipt of a shard: {f'{where}: ' if where else ''}{first['msg']}") from None


@cache
def _adapter() -> TypeAdapter[Receipt]:
    return TypeAdapter(Receipt)
