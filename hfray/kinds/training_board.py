"""How a training run stands, as its workers tell it: an actor that remembers, and a thread that shows what it knows.

What is lost of the ticks costs nothing; an error that a worker has told ends the run, since it would come again.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from hfray.errors import EngineError, HfrayError
from hfray.kinds.progress import Progress

POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Standing:
    """What the workers have told so far. groups: worker groups that have started."""

    step: int = 0
    tokens: int = 0
    loss: float | None = None
    workers: int = 0
    groups: int = 0
    error: HfrayError | None = None


class TrainingBoard:
    """The actor."""

    def __init__(self) -> None:
        self._standing: dict[str, Any] = {}

    def started(self, workers: int, first: str) -> None:
        """first: host and process of the group's first worker."""
        self._standing |= {"workers": workers, "groups": self._standing.get("groups", 0) + 1}

    def tick(self, step: int, tokens: int, loss: float | None) -> None:
        self._standing |= {"step": step, "tokens": tokens, "loss": loss}

    def failed(self, error: HfrayError) -> None:
        self._standing["error"] = error

    def standing(self) -> Standing:
        return Standing(**self._standing)


class TrainingWatch:
    """The board, and the thread that reads it."""

    def __init__(self, progress: Progress, check_start: Callable[[], None]) -> None:
        import ray

        self.board = ray.remote(num_cpus=0, max_restarts=3)(TrainingBoard).remote()
        self.standing = Standing()
        self.problem: HfrayError | None = None
        """Why the main thread was interrupted."""
        self._progress = progress
        self._check_start = check_start
        self._first: Standing | None = None
        """The first that told of steps: what this session counts from."""
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
            try:
                if not self.standing.workers:
                    self._check_start()
            except EngineError as error:
                self.problem = error
            self.problem = self.problem or self.standing.error
            if self.problem is not None:
                # It waits inside Ray Train, for which Ctrl-C must be a real signal.
                signal.pthread_kill(cast(int, threading.main_thread().ident), signal.SIGINT)
                return

    def _poll(self) -> None:
        import ray

        try:
            before, self.standing = self.standing, ray.get(self.board.standing.remote(), timeout=5)
        except Exception:  # a lost board must not end a run
            return
        if self.standing.groups > before.groups:
            self._progress.phase("loading")
        if self.standing.step:
            if self._first is None:
                self._first = self.standing
            self._progress.phase("training")
            self._progress.update(
                self.standing.step,
                self.standing.tokens - self._first.tokens,
                0,
                self.standing.workers,
                resumed_rows=self._first.step - 1,
                loss=self.standing.loss,
            )


@contextlib.contextmanager
def watched_training(progress: Progress, check_start: Callable[[], None]) -> Iterator[TrainingWatch]:
    """A watch for the length of a `with`. Raises in it what a worker told, or what `check_start` raised; Ray Train's
    own handler of Ctrl-C goes with it."""
    handler = signal.getsignal(signal.SIGINT)
    watch = TrainingWatch(progress, check_start)
    try:
        yield watch
    except (KeyboardInterrupt, SystemExit):
        # Ray Train ends the process where it was interrupted.
        if watch.problem is not None:
            raise watch.problem from None
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, handler)
        watch.close()
