"""How a training run stands, as its workers tell it: an actor that remembers, and a thread that shows what it knows.

What is lost of the ticks costs nothing; an error that a worker has told ends the run, since it would come again.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hfray.errors import EngineError, HfrayError
from hfray.kinds.lookout import Lookout
from hfray.kinds.progress import Progress


@dataclass(frozen=True, slots=True)
class Standing:
    """What the workers have told so far. groups: worker groups that have started; failures: groups that were lost, not
    those that made room for a larger or smaller one."""

    step: int = 0
    tokens: int = 0
    loss: float | None = None
    workers: int = 0
    groups: int = 0
    failures: int = 0
    error: HfrayError | None = None


class TrainingBoard:
    """The actor."""

    def __init__(self) -> None:
        self._standing: dict[str, Any] = {}

    def started(self, workers: int) -> None:
        """A group of so many has."""
        self._standing |= {"workers": workers, "groups": self._standing.get("groups", 0) + 1}

    def lost(self) -> None:
        """A group was."""
        self._standing["failures"] = self._standing.get("failures", 0) + 1

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
        self._progress = progress
        self._check_start = check_start
        self._first: Standing | None = None
        """The first that told of steps: what this session counts from."""
        self._lookout = Lookout(self._look)

    @property
    def problem(self) -> HfrayError | None:
        """Why the main thread was interrupted."""
        return self._lookout.problem

    def close(self) -> None:
        self._lookout.close()

    def _look(self) -> HfrayError | None:
        self._poll()
        if not self.standing.workers:
            try:
                self._check_start()
            except EngineError as error:
                return error
        return self.standing.error

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


def lost_workers(board: Any) -> Any:
    """Ray Train's callback that tells the board of lost groups."""
    from ray.train import UserCallback

    class LostWorkers(UserCallback):  # type: ignore[misc]  # chosen by Ray when it is imported
        def after_exception(self, run_context: Any, worker_exceptions: Any) -> None:
            board.lost.remote()

    return LostWorkers()


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
