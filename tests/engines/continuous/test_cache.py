"""Blocks: allocation, sharing, reuse, and their end."""

from __future__ import annotations

import pytest

from hfray.engines.continuous.cache import BlockCache, CacheFull


def test_blocks_come_in_order_and_run_out() -> None:
    cache = BlockCache(3, 4)
    assert [cache.allocate() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(CacheFull):
        cache.allocate()
    cache.release([1])
    assert cache.num_free == 1
    assert cache.allocate() == 1
    assert [cache.blocks_for(tokens) for tokens in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_a_published_block_is_found_while_used_and_after_until_its_place_is_needed() -> None:
    cache = BlockCache(3, 4)
    blocks = [cache.allocate(), cache.allocate()]
    for block, digest in zip(blocks, (b"a", b"b"), strict=True):
        cache.publish(block, digest)
    assert cache.find([b"a", b"b", b"c"]) == blocks
    assert cache.find([b"c", b"a"]) == []
    cache.release(blocks)
    assert cache.num_free == 3
    assert cache.num_idle(blocks) == 2
    cache.share(blocks[:1])
    assert cache.num_free == 2
    assert cache.allocate() == 2  # the one that holds nothing first
    assert cache.allocate() == 1
    assert cache.find([b"a", b"b"]) == [0]
    cache.release([0])
    assert cache.num_free == 1


def test_of_an_idle_prefix_the_end_goes_first() -> None:
    cache = BlockCache(3, 4)
    blocks = [cache.allocate() for _ in range(3)]
    for block in blocks:
        cache.publish(block, bytes([block]))
    cache.release(blocks)
    assert cache.allocate() == 2
    assert cache.find([b"\0", b"\1", b"\2"]) == [0, 1]


def test_a_shared_block_is_free_after_its_last_user_and_an_equal_one_is_not_published_twice() -> None:
    cache = BlockCache(2, 4)
    first, second = cache.allocate(), cache.allocate()
    cache.publish(first, b"a")
    cache.publish(second, b"a")
    assert cache.find([b"a"]) == [first]
    cache.share([first])
    cache.release([first])
    assert cache.num_free == 0
    cache.release([first, second])
    assert cache.num_free == 2


def test_what_is_forgotten_is_never_found() -> None:
    cache = BlockCache(2, 4)
    block = cache.allocate()
    cache.publish(block, b"a")
    cache.share([block])
    cache.release([block], forget=True)
    assert cache.find([b"a"]) == []
    cache.release([block])
    assert cache.num_free == 2
