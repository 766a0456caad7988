"""The thread in which a replica encodes and decodes, and what becomes of one that does not come back. Knows threads and
deadlines; not texts, not models, not HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any

from hfray.errors import EngineError, RowError

MAX_LOST_THREADS = 4
"""Each may keep a core, and what it works at, until the process ends."""
TOO_SLOW = "EncodingTimeout"


@dataclass(slots=True, eq=False)
class _Job:
    """One call of a function in the thread that encodes."""

    call: Callable[[], Any]
    is_probe: bool = False
    began: float = 0.0
    answer: Future[Any] = field(default_factory=Future)


class Coder:
    """One thread that encodes and decodes, as long as it comes to an end with each call: a tokenizer uses all cores it
    is given, and two at once would only share them.

    Nothing can interrupt a tokenizer. A call that takes longer than `limit_s` is answered with a RowError, its thread
    is left to itself, and another takes its place, whose first work is `probe`: where that does not end either (a lock
    is held, the tokenizer's own threads are all taken) or `MAX_LOST_THREADS` are lost, the process must be replaced. A
    tokenizer that keeps the interpreter's lock (Python's `re` does, those in Rust do not) stops this too.
    """

    def __init__(self, limit_s: float, *, probe: Callable[[], Any], discard: Callable[[Any], None]) -> None:
        """discard: is given what a call returned after nobody waited for it any more."""
        self._limit_s = limit_s
        self._probe = probe
        self._discard = discard
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._order = threading.Lock()
        self._now: _Job | None = None
        self._lost: set[_Job] = set()
        self._end: str | None = None
        self._start(None)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns or raises. Raises RowError where it takes too long, EngineError where no thread is
        left to call it."""
        job = _Job(partial(function, *arguments))
        self._jobs.put(job)
        answer = asyncio.wrap_future(job.answer)
        try:
            while not answer.done():
                self._replace_stuck()
                if self._end is not None and not job.answer.done():
                    raise EngineError(self._end)
                await asyncio.wait((answer,), timeout=self._limit_s / 4)
            return answer.result()
        finally:
            answer.cancel()  # nobody waits for it any more

    def check(self) -> None:
        """Raises EngineError once no thread is left."""
        self._replace_stuck()
        if self._end is not None:
            raise EngineError(self._end)

    def close(self) -> None:
        """Ends the thread after what it works at; what waits for it fails with EngineError."""
        self._end = "the replica is closed"
        self._jobs.put(None)

    def _replace_stuck(self) -> None:
        with self._order:
            job = self._now
            if job is None or time.monotonic() - job.began < self._limit_s:
                return
            self._now = None
            self._lost.add(job)
            message = f"reading the request's inputs took longer than {self._limit_s:.3g} s; send shorter ones"
            job.answer.set_exception(RowError(message, type=TOO_SLOW))
            if job.is_probe or len(self._lost) >= MAX_LOST_THREADS:
                self._end = f"the tokenizer is stuck: {len(self._lost)} threads have not come back from it"
            else:
                self._start(_Job(self._probe, is_probe=True))

    def _start(self, first: _Job | None) -> None:
        threading.Thread(target=self._work, args=(first,), name="hfray-coder", daemon=True).start()

    def _work(self, first: _Job | None) -> None:
        if first is None or self._did(first):
            while self._did_next():
                pass

    def _did_next(self) -> bool:
        job = self._jobs.get()
        return job is not None and self._did(job)

    def _did(self, job: _Job) -> bool:
        """Does the job, unless nobody waits for it. False: another thread has taken this one's place."""
        if not job.answer.set_running_or_notify_cancel():
            return True
        job.began = time.monotonic()
        self._now = job
        result: Any = None
        error: BaseException | None = None
        try:
            result = job.call()
        except BaseException as caught:  # it is the caller's
            error = caught
        with self._order:
            if job in self._lost:
                self._lost.discard(job)
                self._discard(result)
                return False
            self._now = None
        if error is None:
            job.answer.set_result(result)
        else:
            job.answer.set_exception(error)
        return True
