"""Brings the actors' ticks to the progress line, and ends the wait for actors that cannot start. What it loses of the
ticks, the receipts still know."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from hfray.errors import EngineError, HfrayError
from hfray.kinds.counter import Counter, Snapshot
from hfray.kinds.lookout import Lookout
from hfray.kinds.progress import Progress


class Watch:
    """The actor that adds up ticks, and the thread that shows its sums."""

    def __init__(
        self, progress: Progress, *, phase: str, check_start: Callable[[], None], resumed_rows: int, resumed_failed: int
    ) -> None:
        import ray

        self.counter = ray.remote(num_cpus=0, max_restarts=3)(Counter).remote()
        self.model: dict[str, Any] | None = None
        """Facts of the model, once an actor has loaded it."""
        self._phase = phase
        self._check_start = check_start
        self._progress = progress
        self._resumed_rows = resumed_rows
        self._resumed_failed = resumed_failed
        self._workers = 0
        self._working = False
        self._lookout = Lookout(self._look)

    @property
    def problem(self) -> HfrayError | None:
        """Why the main thread was interrupted: what `check_start` raised before any worker had reported."""
        return self._lookout.problem

    def close(self) -> None:
        self._lookout.close()

    def _look(self) -> HfrayError | None:
        self._poll()
        if not self._workers:
            try:
                self._check_start()
            except EngineError as error:
                return error
        return None

    def _poll(self) -> None:
        import ray

        try:
            snapshot: Snapshot = ray.get(self.counter.snapshot.remote(), timeout=5)
        except Exception:  # a lost counter must not end a job
            return
        self.model = snapshot.model or self.model
        self._workers = snapshot.workers
        if snapshot.rows and not self._working:
            self._working = True
            self._progress.phase(self._phase)
        self._progress.update(
            self._resumed_rows + snapshot.rows,
            snapshot.tokens,
            self._resumed_failed + snapshot.failed,
            snapshot.workers,
            resumed_rows=self._resumed_rows,
        )


@contextlib.contextmanager
def watched(
    progress: Progress, *, phase: str, check_start: Callable[[], None], resumed_rows: int, resumed_failed: int
) -> Iterator[Watch]:
    """A watch for the length of a `with`. Raises in it what `check_start` raises before any worker has reported."""
    watch = Watch(
        progress,
        phase=phase,
        check_start=check_start,
        resumed_rows=resumed_rows,
        resumed_failed=resumed_failed,
    )
    try:
        yield watch
    except KeyboardInterrupt:
        if watch.problem is not None:
            raise watch.problem from None
        raise
    finally:
        watch.close()
