"""Brings the actors' ticks to the progress line, and ends the wait for actors that cannot start. What it loses of the
ticks, the receipts still know."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

from hfray.errors import EngineError
from hfray.kinds.counter import Counter, Snapshot
from hfray.kinds.progress import Progress

POLL_S = 0.5


class Watch:
    """The actor that adds up ticks, and the thread that shows its sums."""

    def __init__(
        self, progress: Progress, *, phase: str, check_start: Callable[[], None], resumed_rows: int, resumed_failed: int
    ) -> None:
        import ray

        self.counter = ray.remote(num_cpus=0, max_restarts=3)(Counter).remote()
        self.model: dict[str, Any] | None = None
        """Facts of the model, once an actor has loaded it."""
        self.problem: EngineError | None = None
        """Why the main thread was interrupted: what `check_start` raised before any worker had reported."""
        self._phase = phase
        self._check_start = check_start
        self._progress = progress
        self._resumed_rows = resumed_rows
        self._resumed_failed = resumed_failed
        self._workers = 0
        self._working = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hfray-progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._poll()

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            self._poll()
            if self._workers:
                continue
            try:
                self._check_start()
            except EngineError as error:
                self.problem = error
                # It waits inside Ray Data, for which Ctrl-C must be a real signal.
                signal.pthread_kill(cast(int, threading.main_thread().ident), signal.SIGINT)
                return

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
