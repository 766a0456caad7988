"""Which blocks of the key-value cache are whose: allocation, sharing of equal prefixes, reuse. Counts; holds no
tensors.

A block is a fixed number of positions of every layer. A full block is found again under the digest of everything up
to its end, while in use and after, until its place is needed; least recently used go first (the idea is vLLM's
automatic prefix caching, the form nano-vllm's block manager).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Sequence


class CacheFull(Exception):
    """No block is free. The scheduler's own affair: it preempts."""


class BlockCache:
    """Not thread-safe: the engine's thread owns it."""

    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        # The lowest number first: blocks in use lie close together, which attention over slices lives on.
        self._empty = list(range(num_blocks))
        self._idle: OrderedDict[int, None] = OrderedDict()  # free, but still findable
        self._users = [0] * num_blocks
        self._digest_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}
        self._fresh: list[int] = []

    @property
    def num_free(self) -> int:
        return len(self._empty) + len(self._idle)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_tokens)

    def allocate(self) -> int:
        """A block for one user, its contents undefined. Raises CacheFull."""
        if self._empty:
            block = heapq.heappop(self._empty)
        elif self._idle:
            block, _ = self._idle.popitem(last=False)
            self._forget(block)
        else:
            raise CacheFull
        self._users[block] = 1
        self._fresh.append(block)
        return block

    def take_fresh(self) -> list[int]:
        """The blocks allocated since the last call: they still hold what was there before."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def find(self, digests: Sequence[bytes]) -> list[int]:
        """The blocks under the longest run of leading digests that are there. Takes none of them into use."""
        found = []
        for digest in digests:
            block = self._block_of.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def num_idle(self, blocks: Sequence[int]) -> int:
        """How many of the blocks count as free now and would not any more after `share`."""
        return sum(not self._users[block] for block in blocks)

    def share(self, blocks: Sequence[int]) -> None:
        """One more user for each."""
        for block in blocks:
            if not self._users[block]:
                del self._idle[block]
            self._users[block] += 1

    def publish(self, block: int, digest: bytes) -> None:
        """Makes a full block findable, unless an equal one is already."""
        if digest not in self._block_of and block not in self._digest_of:
            self._block_of[digest] = block
            self._digest_of[block] = digest

    def release(self, blocks: Sequence[int], *, forget: bool = False) -> None:
        """One user less for each. forget: what they hold is wrong, and nobody may find it."""
        # A prefix's last blocks go first: without its beginning a prefix is never found.
        for block in reversed(blocks):
            if forget:
                self._forget(block)
            self._users[block] -= 1
            if self._users[block]:
                continue
            if block in self._digest_of:
                self._idle[block] = None
            else:
                heapq.heappush(self._empty, block)

    def _forget(self, block: int) -> None:
        digest = self._digest_of.pop(block, None)
        if digest is not None:
            del self._block_of[digest]
