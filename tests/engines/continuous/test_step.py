"""How the blocks of decoding rows are put together for attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hfray.engines.continuous.scheduler import Slice
from hfray.engines.continuous.sequence import Sequence
from hfray.engines.continuous.step import MIN_VIEW, Step, _views
from hfray.types import GenerationParams


def test_neighbouring_blocks_are_read_in_place_and_the_others_copied() -> None:
    close = np.arange(10, 10 + MIN_VIEW)
    far = close[-1] + 2
    blocks = np.array([far, *close[::-1], 3 * far])
    ((low, pairs),), rest = _views(blocks)
    assert low == 10
    assert blocks[pairs].tolist() == close.tolist()
    assert sorted(blocks[rest]) == [far, 3 * far]
    none, rest = _views(close[1:])
    assert (none, sorted(rest)) == ([], list(range(MIN_VIEW - 1)))


def test_a_shared_block_is_in_a_run_once() -> None:
    blocks = np.array([*range(MIN_VIEW), *range(MIN_VIEW // 2)])
    ((_, pairs),), rest = _views(blocks)
    assert blocks[pairs].tolist() == list(range(MIN_VIEW))
    assert blocks[rest].tolist() == list(range(MIN_VIEW // 2))


def _slice(length: int, blocks: list[int]) -> Slice:
    receiver: Any = None
    sequence = Sequence(GenerationParams(), list(range(length)), receiver, 0, b"", blocks=blocks)
    return Slice(sequence, length - 1, 1)


@pytest.mark.parametrize("window", [None, 3, 6])
def test_each_row_sees_its_own_last_positions(window: int | None) -> None:
    size = 4
    rows = [_slice(9, [0, 2, 4]), _slice(5, [7, 8]), _slice(22, [9, 10, 11, 12, 13, 14])]
    decodes = Step(rows, size, "cpu").decodes(window)
    seen: dict[int, set[tuple[int, int]]] = {0: set(), 1: set(), 2: set()}
    for part in decodes.parts:
        numbers = part.blocks
        numbers = list(range(numbers.start, numbers.stop)) if isinstance(numbers, slice) else numbers.tolist()
        for block, row, bias in zip(numbers, part.row.tolist(), part.bias[:, 0, 0], strict=True):
            seen[row] |= {(block, offset) for offset in range(size) if bias[offset] == 0}
    for number, each in enumerate(rows):
        end = each.end
        start = 0 if window is None else max(0, end - window)
        assert seen[number] == {(each.sequence.blocks[at // size], at % size) for at in range(start, end)}
