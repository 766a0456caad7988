"""Who computes what in the next step: decodes first, then prompts in pieces, under a token budget. Knows sequences and
blocks; not tensors.

Older sequences go before younger ones, among those that decode and among prompts, and both before those that wait, so
none starves. Where no block is free, the youngest running sequence gives up its blocks and comes back later
(recomputation, as in vLLM).
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Sequence as Many
from dataclasses import dataclass

from hfray.engines.budget import Budget
from hfray.engines.continuous.cache import BlockCache, CacheFull
from hfray.engines.continuous.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Slice:
    """Tokens [start, start + count) of a sequence, to be fed to the model; their blocks are allocated."""

    sequence: Sequence
    start: int
    count: int

    @property
    def end(self) -> int:
        return self.start + self.count

    @property
    def draws(self) -> bool:
        """Whether the next token follows from it."""
        return self.end == len(self.sequence.tokens)


class Scheduler:
    """Not thread-safe. A step is `schedule`, the model, then `advance` (it worked) or `undo` (it did not)."""

    def __init__(
        self, cache: BlockCache, *, max_step_tokens: int, max_running: int, max_adapters: int | None = None
    ) -> None:
        """max_adapters: most different ones among the running sequences."""
        self._max_adapters = max_adapters
        self._max_running = max_running
        self.budget = Budget(max_step_tokens)
        """Most tokens of a step."""
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        self.shared_tokens = 0
        """Positions found in the cache instead of being computed."""
        self._cache = cache

    @property
    def max_running(self) -> int:
        """Most sequences with a place in the batch: each feeds a token a step."""
        return min(self._max_running, self.budget.now)

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def schedule(self) -> list[Slice]:
        """The slices of the next step, those of one token first. Empty: nothing waits, or what waits cannot run, for
        which see `stuck`."""
        # A sequence that gave way to older ones leaves an empty step behind, and the older ones run in the next.
        slices = self._isolated() or self._together() or self._isolated() or self._together()
        return sorted(slices, key=lambda each: each.count > 1)

    def _isolated(self) -> list[Slice]:
        """A suspect alone, while everybody else pauses; empty without any, or without room for it."""
        for sequence in self.running:
            if sequence.suspect:
                return self._continue([sequence])
        if self.waiting and self.waiting[0].suspect:
            piece = self._admit(self.waiting[0], self.budget.now)
            if piece is not None:
                return [piece]
        return []

    def _together(self) -> list[Slice]:
        slices = self._continue(self.running)
        budget = self.budget.now - sum(each.count for each in slices)
        while budget > 0 and self.waiting and not self.waiting[0].suspect and len(self.running) < self.max_running:
            if not self._has_adapter_room(self.waiting[0]):
                break
            piece = self._admit(self.waiting[0], budget)
            if piece is None:
                break
            slices.append(piece)
            budget -= piece.count
        return slices

    def stuck(self) -> Sequence | None:
        """After an empty `schedule`: the sequence that the whole cache is too small for."""
        return self.running[0] if self.running else self.waiting[0] if self.waiting else None

    def advance(self, slices: Many[Slice]) -> None:
        """The slices are computed."""
        self.budget.worked()
        for each in slices:
            each.sequence.num_cached = each.end

    def undo(self, slices: Many[Slice]) -> None:
        """The step failed: what it wrote is worthless, and its sequences wait again."""
        for each in slices:
            self._give_back(each.sequence, forget=True)

    def again(self, sequence: Sequence) -> None:
        """All of it is computed again, in its turn; what is cached stays for others."""
        self._give_back(sequence, forget=False)

    def remove(self, sequence: Sequence, *, forget: bool = False) -> None:
        """It is finished, failed or cancelled. forget: its keys and values are not to be trusted."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._free(sequence, forget=forget)
        else:
            self.waiting.remove(sequence)

    def _continue(self, sequences: list[Sequence]) -> list[Slice]:
        """One token for each that decodes, then more of half-computed prompts, oldest first."""
        slices: list[Slice] = []
        budget = self.budget.now
        for sequence in sorted(sequences, key=lambda each: (each.num_left > 1, each.arrival)):
            if budget <= 0:
                break
            if sequence not in self.running:  # preempted a moment ago
                continue
            count = min(sequence.num_left, budget)
            self._extend(sequence, sequence.num_cached + count, slices)
            count = min(count, len(sequence.blocks) * self._cache.block_tokens - sequence.num_cached)
            if count <= 0:
                continue
            slices.append(Slice(sequence, sequence.num_cached, count))
            self._publish(sequence, sequence.num_cached + count)
            budget -= count
        return slices

    def _extend(self, sequence: Sequence, num_tokens: int, slices: list[Slice]) -> None:
        """Blocks for `num_tokens`, or as many as there are, at the cost of younger sequences."""
        while len(sequence.blocks) < self._cache.blocks_for(num_tokens):
            try:
                sequence.blocks.append(self._cache.allocate())
            except CacheFull:
                # One whose slice is already in this step is spared: others may share what it is about to write.
                taken = {id(each.sequence) for each in slices}
                victims = [each for each in self.running if id(each) not in taken and each.arrival > sequence.arrival]
                if victims:
                    self._preempt(max(victims, key=lambda each: each.arrival))
                    continue
                if not slices and len(self.running) > 1:  # nobody moves: older ones do, with its blocks
                    self._preempt(sequence)
                return

    def _admit(self, sequence: Sequence, budget: int) -> Slice | None:
        """The first slice of the sequence that waits longest, after what the cache holds of it already; None if there
        is no room now."""
        cache = self._cache
        # The last token is always computed: the next one is drawn from it.
        known = cache.find(sequence.digests((len(sequence.tokens) - 1) // cache.block_tokens, cache.block_tokens))
        start = len(known) * cache.block_tokens
        count = min(len(sequence.tokens) - start, budget)
        # Room for the whole prompt and a block more for each that runs, lest it be preempted at once.
        needed = cache.blocks_for(len(sequence.tokens)) - len(known) + cache.num_idle(known)
        if needed + len(self.running) > cache.num_free and (self.running or needed > cache.num_free):
            return None
        self.waiting.popleft()
        self.running.append(sequence)
        cache.share(known)
        sequence.blocks = [*known, *(cache.allocate() for _ in range(cache.blocks_for(start + count) - len(known)))]
        sequence.num_cached = start
        self.shared_tokens += start
        self._publish(sequence, start + count)
        return Slice(sequence, start, count)

    def _has_adapter_room(self, sequence: Sequence) -> bool:
        if self._max_adapters is None or sequence.adapter is None:
            return True
        running = {each.adapter for each in self.running if each.adapter is not None}
        return len(running | {sequence.adapter}) <= self._max_adapters

    def _publish(self, sequence: Sequence, num_tokens: int) -> None:
        """Announces blocks that this step fills: a layer writes all keys and values before it reads any, so another
        sequence of the same step may already use them."""
        first = sequence.num_cached // self._cache.block_tokens
        full = num_tokens // self._cache.block_tokens
        if first == full:
            return
        digests = sequence.digests(full, self._cache.block_tokens)
        for number in range(first, full):
            self._cache.publish(sequence.blocks[number], digests[number])

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self.again(sequence)

    def _give_back(self, sequence: Sequence, *, forget: bool) -> None:
        if sequence not in self.running:
            return
        self.running.remove(sequence)
        self._free(sequence, forget=forget)
        ages = [each.arrival for each in self.waiting]
        self.waiting.insert(bisect.bisect(ages, sequence.arrival), sequence)

    def _free(self, sequence: Sequence, *, forget: bool) -> None:
        self._cache.release(sequence.blocks, forget=forget)
        sequence.blocks = []
        sequence.num_cached = 0
