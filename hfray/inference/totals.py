"""The sum of receipts. Knows plain numbers; a million receipts are added up in constant memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hfray.inference.receipt import LENGTH_BINS, NUM_SCORE_BINS, Receipt, most_frequent

MAX_TOTAL_LABELS = 500
"""Labels that `Totals` keeps when it has to forget some."""

MAX_POINTS = 300
"""Most points of a throughput series."""


class Throughput:
    """Rows and tokens over time in at most MAX_POINTS bins; the bin width doubles whenever more would be needed.

    A shard's rows are spread evenly over the time it took: counted at its commit they would draw a comb.
    """

    def __init__(self) -> None:
        self.bin_s = 1.0
        self.started_at = math.inf
        """Unix time of the left edge of the first bin."""
        self.ended_at = -math.inf
        self._first_at = math.inf
        self._rows: list[float] = []
        self._tokens: list[float] = []

    @property
    def span_s(self) -> float:
        """Seconds from the first shard's start to the last one's end."""
        return max(0.0, self.ended_at - self._first_at) if self._rows else 0.0

    def add(self, started_at: float, ended_at: float, rows: int, tokens: int) -> None:
        """Counts a shard. Workers' clocks and arrivals may be in any order."""
        ended_at = max(started_at, ended_at)
        if not self._rows:
            self.started_at = self._first_at = started_at
        self._first_at = min(self._first_at, started_at)
        self.ended_at = max(self.ended_at, ended_at)
        while self._bins_before(started_at) + self._bins_after(self.ended_at) > MAX_POINTS:
            self._double()
        if before := self._bins_before(started_at):
            self._rows[:0] = self._tokens[:0] = [0.0] * before
            self.started_at -= before * self.bin_s
        missing = self._bins_after(self.ended_at) - len(self._rows)
        self._rows.extend([0.0] * missing)
        self._tokens.extend([0.0] * missing)
        self._spread(started_at - self.started_at, ended_at - self.started_at, rows, tokens)

    def points(self) -> tuple[tuple[float, float, float], ...]:
        """(seconds since the start, rows per second, tokens per second) at the middle of each bin."""
        total_s = self.ended_at - self.started_at
        points = []
        for index, (rows, tokens) in enumerate(zip(self._rows, self._tokens, strict=True)):
            left = index * self.bin_s
            # The last bin is as wide as what has passed of it; a job of no duration counts as one bin.
            width = min(self.bin_s, total_s - left) if total_s > left else self.bin_s
            points.append((left + width / 2, rows / width, tokens / width))
        return tuple(points)

    def _bins_before(self, at: float) -> int:
        return max(0, math.ceil((self.started_at - at) / self.bin_s))

    def _bins_after(self, at: float) -> int:
        return max(1, math.ceil((at - self.started_at) / self.bin_s))

    def _double(self) -> None:
        self.bin_s *= 2
        self._rows, self._tokens = _pairs(self._rows), _pairs(self._tokens)

    def _spread(self, start_s: float, end_s: float, rows: int, tokens: int) -> None:
        first = min(int(start_s // self.bin_s), len(self._rows) - 1)
        last = min(max(first, math.ceil(end_s / self.bin_s) - 1), len(self._rows) - 1)
        for index in range(first, last + 1):
            inside_s = min(end_s, (index + 1) * self.bin_s) - max(start_s, index * self.bin_s)
            share = 1.0 if first == last else inside_s / (end_s - start_s)
            self._rows[index] += rows * share
            self._tokens[index] += tokens * share


def _pairs(values: Sequence[float]) -> list[float]:
    return [sum(values[index : index + 2]) for index in range(0, len(values), 2)]


@dataclass(slots=True)
class Totals:
    """The sum of receipts, in memory that does not grow with their number (but with that of workers)."""

    shards: int = 0
    adopted_shards: int = 0
    rows: int = 0
    adopted_rows: int = 0
    failed: int = 0
    computed_failed: int = 0
    """`failed` of this session's own shards."""
    size_bytes: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    generated_tokens: int = 0
    computed_tokens: int = 0
    """`tokens` of this session's own shards."""
    truncated: int = 0
    documents: int = 0
    busy_s: float = 0.0
    """Of this session's own shards, over all workers."""
    lengths: list[int] = field(default_factory=lambda: [0] * (len(LENGTH_BINS) + 1))
    scores: list[int] = field(default_factory=lambda: [0] * NUM_SCORE_BINS)
    labels: dict[str, int] = field(default_factory=dict)
    """Label to count; "" stands for all that was not counted apart, so that with more than MAX_LABELS labels in a
    shard a count is a lower bound."""
    error_types: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    """Source rows by the step that took them away; of parts computed, not adopted."""
    workers: set[str] = field(default_factory=set)
    """Those that computed a shard in this session."""
    throughput: Throughput = field(default_factory=Throughput)
    """Of this session's own shards."""

    @property
    def computed_rows(self) -> int:
        """This session's own rows."""
        return self.rows - self.adopted_rows

    def add(self, receipt: Receipt) -> None:
        self.shards += 1
        self.rows += receipt.rows
        self.failed += receipt.failed
        self.size_bytes += receipt.size_bytes
        self.tokens += receipt.tokens
        self.padded_tokens += receipt.padded_tokens
        self.generated_tokens += receipt.generated_tokens
        self.truncated += receipt.truncated
        self.documents += receipt.documents
        for counts, more in ((self.lengths, receipt.lengths), (self.scores, receipt.scores)):
            for index, count in enumerate(more):
                counts[index] += count
        self.labels = _merged(self.labels, receipt.labels)
        self.error_types = _merged(self.error_types, receipt.error_types)
        self.left_out = _merged(self.left_out, receipt.left_out)
        if receipt.adopted:
            self.adopted_shards += 1
            self.adopted_rows += receipt.rows
            return
        self.computed_failed += receipt.failed
        self.computed_tokens += receipt.tokens
        self.busy_s += receipt.busy_s
        self.workers.add(receipt.worker)
        self.throughput.add(receipt.started_at, receipt.ended_at, receipt.rows, receipt.tokens)


def _merged(counts: dict[str, int], more: Mapping[str, int]) -> dict[str, int]:
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count
    return counts if len(counts) <= 2 * MAX_TOTAL_LABELS else most_frequent(counts, MAX_TOTAL_LABELS)
