"""A thread that looks at something while the main thread waits inside Ray, and interrupts it when there is no use in
waiting. Knows threads and signals; not what is looked at."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import cast

from hfray.errors import HfrayError

POLL_S = 0.5


class Lookout:
    """Calls `look` every half second, and once more at the end. The first error that it gives becomes `problem`, and
    the main thread gets a KeyboardInterrupt: it waits where Ctrl-C must be a real signal."""

    def __init__(self, look: Callable[[], HfrayError | None]) -> None:
        self.problem: HfrayError | None = None
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hfray-progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            self.problem = self._look()
            if self.problem is not None:
                signal.pthread_kill(cast(int, threading.main_thread().ident), signal.SIGINT)
                return
