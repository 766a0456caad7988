"""Equal items are computed once. Knows the bytes of items and outputs; not models."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from hfray.types import Item, Output

CACHE_BYTES = 64 * 2**20


def item_key(item: Item, place: int) -> bytes:
    """A digest that two items share only if their outputs must be equal; sampled items never share one."""
    digest = hashlib.blake2b(digest_size=16)
    generation = item.generation
    digest.update(repr((item.kind, item.reduce, item.adapter, item.cache_salt)).encode())
    if generation is not None:
        digest.update(repr((generation, id(generation.stop), None if generation.deterministic else place)).encode())
    for name, array in item.inputs.items():
        digest.update(f"\0{name}\0{array.shape}\0{array.dtype}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def group_equal(items: Sequence[Item]) -> list[tuple[Item, bytes, list[int]]]:
    """(item, key, places) for each distinct item, in order of first appearance."""
    groups: dict[bytes, tuple[Item, bytes, list[int]]] = {}
    for place, item in enumerate(items):
        key = item_key(item, place)
        groups.setdefault(key, (item, key, []))[2].append(place)
    return list(groups.values())


class OutputCache:
    """Outputs kept for the life of an engine, least recently used out, bounded in bytes. Thread-safe."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._outputs: OrderedDict[bytes, Output] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Output | None:
        with self._lock:
            output = self._outputs.get(key)
            if output is not None:
                self._outputs.move_to_end(key)
            return output

    def put(self, key: bytes, output: Output) -> None:
        # An output is often a view of its row, which would keep the whole batch alive.
        output = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in output.items()}
        with self._lock:
            if key in self._outputs:
                self._bytes -= _size_bytes(self._outputs.pop(key))
            self._bytes += _size_bytes(output)
            self._outputs[key] = output
            while self._bytes > self._max_bytes and self._outputs:
                self._bytes -= _size_bytes(self._outputs.popitem(last=False)[1])


def _size_bytes(output: Output) -> int:
    return 200 + sum(value.nbytes for value in output.values() if isinstance(value, np.ndarray))
