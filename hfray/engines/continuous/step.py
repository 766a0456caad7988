"""What one forward of the model needs to know: positions, places in the cache, and which blocks each row attends to.

Knows slices and indices; computes nothing. Rows are packed: no padding, sequences one after another, those that feed
one token first.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hfray.engines.continuous.scheduler import Slice
from hfray.types import Array

MIN_VIEW = 16  # blocks: of fewer a copy is cheaper than a product of their own
MAX_VIEWS = 8


@dataclass(frozen=True, slots=True)
class Part:
    """Some blocks, each seen by one decoding row: a slice of the cache (read in place) or a list (copied together)."""

    blocks: Any
    """slice, or int64 [n]."""
    row: Any
    """int64 [n]: who attends to each block."""
    place: Any
    """int64 [n]: the entry of the block in a table [rows * width]."""
    bias: Any
    """float32 [n, 1, 1, block_tokens]: 0 where the row sees the position, else -inf."""


@dataclass(frozen=True, slots=True)
class Decodes:
    """All rows that feed one token, under one attention window."""

    parts: tuple[Part, ...]
    num_rows: int
    width: int
    """Most blocks that a row attends to."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Several tokens of one sequence: rows [row, row + count) of the step, positions from `start`."""

    row: int
    start: int
    count: int
    blocks: Any
    """int64 [num_blocks] of the whole sequence so far."""


class Step:
    """One forward. Made on the host, its tensors on the device."""

    def __init__(self, slices: Many[Slice], block_tokens: int, device: Any) -> None:
        self.num_decodes = sum(each.count == 1 for each in slices)
        self._slices = slices
        self._block_tokens = block_tokens
        self._device = device
        self._decodes: dict[int | None, Decodes] = {}
        tokens = np.concatenate([each.sequence.tokens[each.start : each.end] for each in slices])
        positions = np.concatenate([np.arange(each.start, each.end) for each in slices])
        numbers = positions // block_tokens
        counts = [each.count for each in slices]
        first = np.cumsum([0, *[len(each.sequence.blocks) for each in slices[:-1]]])
        tables = np.concatenate([each.sequence.blocks for each in slices])
        ends = np.cumsum(counts)
        self.input_ids = self._tensor(tokens)[None]
        self.position_ids = self._tensor(positions)[None]
        self._blocks = tables[np.repeat(first, counts) + numbers]
        self._offsets = positions % block_tokens
        self._slots: dict[int, Any] = {}
        self.drawing = [each.sequence for each in slices if each.draws]
        lasts = [end - 1 for end, each in zip(ends, slices, strict=True) if each.draws]
        self.last_rows = self._tensor(np.array(lasts, dtype=np.int64))
        """int64: the rows whose scores are wanted, in the order of `drawing`."""
        long = np.array([each.sequence.is_long for each in slices])
        self.long_rows = self._tensor(np.repeat(long, counts)) if long.any() else None
        """bool [tokens]: whose texts are long, see `rotation`."""
        self.pieces = [
            Piece(int(end) - each.count, each.start, each.count, self._tensor(np.array(each.sequence.blocks)))
            for end, each in zip(ends, slices, strict=True)
            if each.count > 1
        ]

    def routing(self) -> list[tuple[str, Any]]:
        """Which rows have which adapter: `models.lora.Routing`."""
        names = [each.sequence.adapter for each in self._slices]
        if set(names) == {names[0]}:
            return [] if names[0] is None else [(names[0], None)]
        rows = np.repeat(np.array([name or "" for name in names]), [each.count for each in self._slices])
        return [(name, self._tensor(np.flatnonzero(rows == name))) for name in sorted({each for each in names if each})]

    def slots(self, num_kv_heads: int) -> Any:
        """int64 [tokens * num_kv_heads]: where each token's heads go in a cache [num_blocks * num_kv_heads *
        block_tokens, dim]."""
        if num_kv_heads not in self._slots:
            heads = self._blocks[:, None] * num_kv_heads + np.arange(num_kv_heads)
            slots = heads * self._block_tokens + self._offsets[:, None]
            self._slots[num_kv_heads] = self._tensor(slots.reshape(-1))
        return self._slots[num_kv_heads]

    def decodes(self, window: int | None) -> Decodes:
        """window: how many last positions a row sees, itself included; None: all."""
        if window not in self._decodes:
            self._decodes[window] = self._plan(window)
        return self._decodes[window]

    def _plan(self, window: int | None) -> Decodes:
        size = self._block_tokens
        rows = self._slices[: self.num_decodes]
        ends = np.array([each.end for each in rows])
        starts = np.zeros_like(ends) if window is None else np.maximum(ends - window, 0)
        firsts = starts // size
        counts = -(-ends // size) - firsts
        width = int(counts.max())
        row = np.repeat(np.arange(len(rows)), counts)
        ordinal = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        blocks = np.concatenate(
            [
                each.sequence.blocks[first : first + count]
                for each, first, count in zip(rows, firsts, counts, strict=True)
            ]
        )
        position = ((firsts[row] + ordinal) * size)[:, None] + np.arange(size)[None, :]
        seen = (position < ends[row][:, None]) & (position >= starts[row][:, None])
        place = row * width + ordinal
        views, rest = _views(blocks)
        parts = [
            self._part(slice(low, low + len(pairs)), row[pairs], place[pairs], seen[pairs]) for low, pairs in views
        ]
        if len(rest):
            parts.append(self._part(self._tensor(blocks[rest]), row[rest], place[rest], seen[rest]))
        return Decodes(tuple(parts), len(rows), width)

    def _part(self, blocks: Any, row: Array, place: Array, seen: Array) -> Part:
        bias = np.where(seen, np.float32(0), np.float32("-inf"))[:, None, None, :]
        return Part(blocks, self._tensor(row), self._tensor(place), self._tensor(bias))

    def _tensor(self, array: Array) -> Any:
        return torch.from_numpy(array).to(self._device, non_blocking=True)


def _views(blocks: Array) -> tuple[list[tuple[int, Array]], Array]:
    """Splits (block, row) pairs, given by their blocks, into long runs of neighbouring blocks, as (first block, pairs
    in ascending order), and all other pairs. A shared block is in a run once."""
    order = np.argsort(blocks, kind="stable")
    ascending = blocks[order]
    again = np.r_[False, ascending[1:] == ascending[:-1]]
    rest = [order[again]]
    order, ascending = order[~again], ascending[~again]
    breaks = np.flatnonzero(np.diff(ascending) > 1) + 1
    runs = sorted(np.split(order, breaks), key=len, reverse=True)
    views = [run for run in runs[:MAX_VIEWS] if len(run) >= MIN_VIEW]
    rest += runs[len(views) :]
    return [(int(blocks[run[0]]), run) for run in views], np.concatenate(rest)
