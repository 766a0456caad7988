"""A global batch cut into micro-batches of nearly equal work. Knows lengths; not what an example is, not who takes it.

Ranks wait for each other in every step, and a micro-batch is padded to its longest sample. Dealt out as they come, the
ranks' micro-batches differ as their longest samples do, and the step takes as long as the longest of all. Cut by length
instead, a few long samples make one micro-batch and many short ones another; since the samples of the step stay what
they were and each counts alike, what is learned stays the same too.
"""

from __future__ import annotations

import numpy as np

from hfray.types import Array

_CLOSE = 0.01
"""The search ends when the largest share is known to be within this of the smallest possible one."""


def even_shares(lengths: Array, num_shares: int) -> list[Array]:
    """Which samples go together: `num_shares` lists of places, none empty, the longest samples first.

    lengths: int64 [num_samples, num_columns], num_samples >= num_shares; of each column that is padded by itself. The
    work of a share is its samples times the longest of each column, and the largest is no larger than if all shares
    had equally many samples.
    """
    num_samples = len(lengths)
    order = np.argsort(-lengths.sum(1), kind="stable")
    ordered = lengths[order]
    ends = np.arange(1, num_shares + 1) * num_samples // num_shares  # nothing worse is taken
    most = _largest(ordered, ends)
    least = int(lengths.sum()) // num_shares
    while most - least > _CLOSE * most:
        middle = (least + most) // 2
        found = _filled(ordered, num_shares, middle)
        work = _largest(ordered, found)
        if work <= middle:
            ends, most = found, work
        else:
            least = middle + 1
    return np.split(order, ends[:-1])


def _filled(lengths: Array, num_shares: int, work: int) -> Array:
    """Where the shares end if each but the last takes samples up to this work, one at least."""
    start, ends = 0, []
    for after in range(num_shares - 1, 0, -1):
        some = lengths[start : len(lengths) - after]
        grown = np.maximum.accumulate(some).sum(1) * np.arange(1, len(some) + 1)
        start += max(1, int(np.searchsorted(grown, work, side="right")))
        ends.append(start)
    return np.array([*ends, len(lengths)])


def _largest(lengths: Array, ends: Array) -> int:
    """The work of the largest share."""
    starts = np.array([0, *ends[:-1]])
    longest = np.maximum.reduceat(lengths, starts).sum(1)
    return int(((ends - starts) * longest).max())
