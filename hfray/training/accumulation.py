"""How a global batch is shared: global = workers x micro-batch x accumulation. Knows arithmetic only."""

from __future__ import annotations

from hfray.errors import SpecError

_MAX_SHOWN = 4
_MAX_WORKERS = 64


def accumulation(global_batch_size: int, micro_batch_size: int, world_size: int) -> int:
    """Micro-batches of one worker in an optimizer step.

    Raises SpecError, with the values that would do, where the global batch cannot be shared so.
    """
    together = world_size * micro_batch_size
    if global_batch_size % together:
        raise SpecError(
            f"global_batch_size: {global_batch_size} is no multiple of {together}, what {_workers(world_size)} with "
            f"trainer.per_device_train_batch_size {micro_batch_size} take at once; "
            + ", or ".join(_remedies(global_batch_size, micro_batch_size, world_size))
        )
    return global_batch_size // together


def micro_batch_sizes(global_batch_size: int, world_size: int, at_most: int) -> tuple[int, ...]:
    """The micro-batches, smallest first, in which so many workers can share the global batch; () if there are none."""
    share, rest = divmod(global_batch_size, world_size)
    return () if rest else tuple(size for size in range(1, min(share, at_most) + 1) if share % size == 0)


def world_sizes(global_batch_size: int, micro_batch_size: int, at_least: int, at_most: int) -> tuple[int, ...]:
    """The numbers of workers in a range that can share the global batch: the sizes that an elastic run may take."""
    most = min(at_most, global_batch_size // micro_batch_size)
    return tuple(each for each in range(at_least, most + 1) if global_batch_size % (each * micro_batch_size) == 0)


def _remedies(global_batch_size: int, micro_batch_size: int, world_size: int) -> list[str]:
    together = world_size * micro_batch_size
    below = global_batch_size // together * together
    near = [str(each) for each in (below, below + together) if each]
    found = [f"use global_batch_size {' or '.join(near)}"]
    smaller = micro_batch_sizes(global_batch_size, world_size, micro_batch_size)
    if smaller:
        found.append(f"per_device_train_batch_size {_listed(smaller)}")
    workers = world_sizes(global_batch_size, micro_batch_size, 1, max(_MAX_WORKERS, world_size))
    if workers:
        nearest = sorted(sorted(workers, key=lambda each: abs(each - world_size))[:_MAX_SHOWN])
        found.append(f"{_listed(tuple(nearest))} workers")
    return found


def _listed(values: tuple[int, ...]) -> str:
    """The largest few."""
    *others, last = (str(value) for value in values[-_MAX_SHOWN:])
    return f"{', '.join(others)} or {last}" if others else last


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
