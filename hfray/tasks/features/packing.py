"""Documents to sequences of one length. Knows lengths, token ids and numpy; not text, not tokenizers, not files.

Best-fit decreasing bin packing, after "Fewer Truncations Improve Language Modeling" (arXiv 2404.10830): a document is
cut only where it is longer than a sequence, and what is left of it is packed like a short one. Nothing is dropped.

A mode that packs (`Features.packs`) makes one example per document in `encode`, of any length; what writes the
examples then calls its `pack` once, over all documents of a shard: the more there are, the fuller the sequences.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hfray.tasks.features.base import IGNORED
from hfray.types import Array, Ragged

if TYPE_CHECKING:
    import pyarrow as pa

Strategy = Literal["best_fit", "concatenate"]

BLOCK_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class Packing:
    """Which piece of which document stands where, piece by piece in the order of the sequences.

    documents, starts, lengths: int64 [num_pieces]: a piece is tokens `start` to `start + length` of a document.
    sequences: int64 [num_pieces], ascending: the sequence that the piece is in; pieces of one follow each other.
    """

    documents: Array
    starts: Array
    lengths: Array
    sequences: Array
    num_sequences: int
    max_length: int

    @property
    def efficiency(self) -> float:
        """Tokens of documents over room for tokens, 0 to 1; 1 where there is neither."""
        capacity = self.num_sequences * self.max_length
        return float(self.lengths.sum()) / capacity if capacity else 1.0


def pack(lengths: Array, max_length: int, strategy: Strategy = "best_fit") -> Packing:
    """Where the tokens of documents of these lengths (int [num_documents]) go; the same for the same lengths.

    best_fit: each document whole if it fits into a sequence, in as few sequences as best-fit decreasing finds, which
    are sorted by their first document. O(n log n) for n documents and their full-length cuts.
    concatenate: documents one after another, cut every `max_length` tokens; the last sequence may be shorter.
    """
    lengths = np.asarray(lengths, np.int64)
    return _STRATEGIES[strategy](lengths, max_length)


def packed_columns(ids: Ragged, labels: Ragged | None, packing: Packing, pad_id: int) -> dict[str, Array]:
    """The packed sequences, int32 [num_sequences, max_length] each: `input_ids`, `position_ids`, `labels`.

    Positions start at 0 at each piece, and once more at the padding, which counts as one more document: a model that
    keeps documents apart by their positions keeps the padding apart. Labels are `labels`, or the ids where that is
    None, but for the first token of a piece (the token before it is another document's) and for padding.
    """
    shape = packing.num_sequences, packing.max_length
    lengths = packing.lengths
    ends = np.cumsum(lengths)
    fill = np.bincount(packing.sequences, weights=lengths, minlength=packing.num_sequences).astype(np.int64)
    # Pieces are in order of sequences, so what stands before a piece, less all earlier sequences, is before it in its.
    offsets = (ends - lengths) - (np.cumsum(fill) - fill)[packing.sequences]
    firsts = packing.sequences * packing.max_length + offsets
    sources = ids.offsets[packing.documents] + packing.starts

    input_ids = np.full(shape, pad_id, np.int32)
    position_ids = np.arange(packing.max_length, dtype=np.int32) - fill[:, None].astype(np.int32)
    packed_labels = np.full(shape, IGNORED, np.int32)
    labelled = ids if labels is None else labels
    for some in _blocks(ends):
        within = _within(lengths[some])
        source = np.repeat(sources[some], lengths[some]) + within
        target = np.repeat(firsts[some], lengths[some]) + within
        input_ids.reshape(-1)[target] = ids.values[source]
        position_ids.reshape(-1)[target] = within
        packed_labels.reshape(-1)[target] = labelled.values[source]
    packed_labels.reshape(-1)[firsts] = IGNORED
    return {"input_ids": input_ids, "position_ids": position_ids, "labels": packed_labels}


def _blocks(ends: Array) -> Iterator[slice]:
    """Pieces in runs of about BLOCK_TOKENS tokens: their indexes take eight times the memory of the tokens."""
    edges = np.flatnonzero(np.diff(ends // BLOCK_TOKENS)) + 1
    yield from (slice(int(start), int(stop)) for start, stop in pairwise([0, *edges, len(ends)]))


def _within(lengths: Array) -> Array:
    """Of each token, its place in its piece."""
    ends = np.cumsum(lengths)
    within: Array = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    return within


@dataclass(frozen=True, slots=True)
class Packer:
    """How a mode packs; what its `pack` and `packed_schema` call."""

    strategy: Strategy
    max_length: int
    pad_id: int

    def pack(self, columns: Mapping[str, Any]) -> dict[str, Ragged]:
        """The columns of `encode`'s examples (`input_ids`, maybe `labels`) to those of `schema`; every list has
        `max_length` elements. No column has one entry per document any more."""
        ids: Ragged = columns["input_ids"]
        packing = pack(ids.lengths, self.max_length, self.strategy)
        packed = packed_columns(ids, columns.get("labels"), packing, self.pad_id)
        return {name: as_lists(rows) for name, rows in packed.items()}

    def schema(self) -> pa.Schema:
        """The Arrow types of the packed columns, in order."""
        import pyarrow as pa

        return pa.schema([(name, pa.list_(pa.int32())) for name in ("input_ids", "position_ids", "labels")])


def as_lists(rows: Array) -> Ragged:
    """A 2-D array as lists of one length, without a copy."""
    count, width = rows.shape
    return Ragged(rows.reshape(-1), np.arange(count + 1, dtype=np.int64) * width)


def _concatenate(lengths: Array, max_length: int) -> Packing:
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    starts = np.union1d((ends - lengths)[lengths > 0], np.arange(0, total, max_length))
    documents = np.searchsorted(ends, starts, side="right")
    return Packing(
        documents=documents,
        starts=starts - (ends - lengths)[documents],
        lengths=np.diff(starts, append=total),
        sequences=starts // max_length,
        num_sequences=-(-total // max_length),
        max_length=max_length,
    )


def _best_fit(lengths: Array, max_length: int) -> Packing:
    num_pieces = -(-lengths // max_length)  # a document without tokens has no piece
    documents = np.repeat(np.arange(len(lengths)), num_pieces)
    order = np.arange(len(documents)) - np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces)
    starts = order * max_length
    pieces = np.minimum(lengths[documents] - starts, max_length)

    bins = np.arange(len(pieces))
    short = np.flatnonzero(pieces < max_length)
    longest_first = short[np.argsort(-pieces[short], kind="stable")]
    bins[longest_first] = longest_first[_best_fit_bins(pieces[longest_first].tolist(), max_length)]

    # A bin is known by one of its pieces until here; its sequence is its rank among the bins by their first piece.
    first = np.full(len(pieces), len(pieces))
    np.minimum.at(first, bins, np.arange(len(pieces)))
    _, sequences = np.unique(first[bins], return_inverse=True)
    by_sequence = np.argsort(sequences, kind="stable")
    return Packing(
        documents=documents[by_sequence],
        starts=starts[by_sequence],
        lengths=pieces[by_sequence],
        sequences=sequences[by_sequence],
        num_sequences=int(sequences.max()) + 1 if len(sequences) else 0,
        max_length=max_length,
    )


def _best_fit_bins(lengths: list[int], max_length: int) -> list[int]:
    """For each length, longest first, the number of the piece that opened its bin."""
    bins: list[int] = []
    open_bins: dict[int, list[int]] = {}
    room: list[int] = []  # the keys of `open_bins`, sorted: at most max_length, so an insertion costs next to nothing
    for piece, length in enumerate(lengths):
        place = bisect_left(room, length)
        if place == len(room):
            left, chosen = max_length, piece
        else:
            left = room[place]
            same = open_bins[left]
            chosen = same.pop()
            if not same:
                del open_bins[left], room[place]
        bins.append(chosen)
        left -= length
        if left:
            if left not in open_bins:
                open_bins[left] = []
                insort(room, left)
            open_bins[left].append(chosen)
    return bins


_STRATEGIES = {"best_fit": _best_fit, "concatenate": _concatenate}
