"""Random choices that every machine makes alike: a permutation without a list, and hashes of content. Knows integers
and bytes; not rows, not files.

What a row's hash is decides which split it is in and which rows are equal, and a permutation decides which part of an
output holds it: tokens that were made once would be found elsewhere if either changed. Their values are pinned in the
tests; they depend on no machine, no Python hash seed, no version of numpy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from hfray.types import Array

_NUM_ROUNDS = 8
_MIN_HALF_BITS = 3
_BLOCK = 1 << 16
"""Values that are worked on at a time: all of their intermediate arrays stay in a core's cache."""

_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)


class Permutation:
    """A bijection of range(size), one of many, chosen by a seed; kept as a handful of keys, whatever the size.

    A balanced Feistel network (Luby and Rackoff, 1988) over the next larger power of four, whose round function is the
    finaliser of splitmix64 (Steele et al., 2014); what falls outside the range goes through it again until it is inside
    (cycle walking: Black and Rogaway, 2002), less than four times on average.
    """

    def __init__(self, size: int, seed: int, purpose: str = "") -> None:
        """purpose: one seed makes independent permutations for different purposes. Raises ValueError for a size that is
        negative or above 2**62."""
        if not 0 <= size <= 1 << 62:
            raise ValueError(f"a permutation of {size} numbers: the size must be 0 to 2**62")
        self.size = size
        half_bits = max(_MIN_HALF_BITS, -(-(size - 1).bit_length() // 2))
        self._half = np.uint64(half_bits)
        self._mask = np.uint64((1 << half_bits) - 1)
        self._top = np.uint64(64 - half_bits)
        digest = hashlib.blake2b(f"{size}/{seed}/{purpose}".encode(), digest_size=8 * _NUM_ROUNDS).digest()
        self._keys = np.frombuffer(digest, "<u8").astype(np.uint64)

    def __call__(self, values: Array) -> Array:
        """int64 [...]: where the values go. Raises ValueError for one outside the range."""
        return self._walk(values, self._forward)

    def inverse(self, values: Array) -> Array:
        """int64 [...]: where the values come from. Raises ValueError for one outside the range."""
        return self._walk(values, self._backward)

    def _walk(self, values: Array, step: Callable[[Array], Array]) -> Array:
        values = np.asarray(values, np.int64)
        flat = values.reshape(-1)
        if flat.size and not 0 <= int(flat.min()) <= int(flat.max()) < self.size:
            raise ValueError(f"values {flat.min()} to {flat.max()} are not in a permutation of {self.size} numbers")
        moved = np.empty(flat.shape, np.int64)
        size = np.uint64(self.size)
        for start in range(0, flat.size, _BLOCK):
            block = step(flat[start : start + _BLOCK].astype(np.uint64))
            outside = np.flatnonzero(block >= size)
            while outside.size:
                again = step(block[outside])
                block[outside] = again
                outside = outside[again >= size]
            moved[start : start + _BLOCK] = block
        return moved.reshape(values.shape)

    def _forward(self, values: Array) -> Array:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ self._round(right, key)
        return np.asarray((left << self._half) | right)

    def _backward(self, values: Array) -> Array:
        left, right = values >> self._half, values & self._mask
        for key in self._keys[::-1]:
            left, right = right ^ self._round(left, key), left
        return np.asarray((left << self._half) | right)

    def _round(self, half: Array, key: np.uint64) -> Array:
        mixed = half + key  # arrays of uint64 wrap around, as they must
        mixed ^= mixed >> _SHIFT_1
        mixed *= _MIX_1
        mixed ^= mixed >> _SHIFT_2
        mixed *= _MIX_2
        mixed ^= mixed >> _SHIFT_3
        return np.asarray(mixed >> self._top)


def stable_hash(parts: bytes | Sequence[bytes], key: bytes = b"") -> int:
    """128 bits of BLAKE2b (RFC 7693) as an integer, most significant byte first.

    Each part is preceded by its length (8 bytes, least significant first), so that ["ab", "c"] is not ["a", "bc"];
    bytes alone are one part. key: at most 64 bytes; another key gives an unrelated hash.
    """
    digest = hashlib.blake2b(digest_size=16, key=key)
    for part in (parts,) if isinstance(parts, bytes) else parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return int.from_bytes(digest.digest(), "big")


def fraction_of(row_hash: int) -> float:
    """A `stable_hash` as a number in [0, 1): its first 53 bits, as many as a float holds, so that it is never 1."""
    return (row_hash >> 75) * 2.0**-53
