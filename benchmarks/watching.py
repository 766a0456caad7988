"""What a job's processes take while it runs, asked from outside."""

from __future__ import annotations

import statistics
import time

import psutil

WINDOW_S = 2.0


class Peaks:
    """Bytes: resident memory of the driver and of the largest worker, and the shared pages of the driver's raylet,
    which holds the object store."""

    def __init__(self) -> None:
        self.driver = self.object_store = self.worker = 0

    def __call__(self, driver: psutil.Process) -> None:
        try:
            self.driver = max(self.driver, driver.memory_info().rss)
            for child in driver.children(recursive=True):
                memory = child.memory_info()
                if child.name() == "raylet":
                    self.object_store = max(self.object_store, memory.shared)
                elif is_of(child, "MapWorker"):
                    self.worker = max(self.worker, memory.rss)
        except psutil.NoSuchProcess:
            return


class Cores:
    """How many cores the processes of a title keep busy together."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._found: list[psutil.Process] = []
        self._last: tuple[float, float] | None = None
        self._windows: list[float] = []

    def __call__(self, driver: psutil.Process) -> None:
        now = time.perf_counter()
        if self._last is not None and now - self._last[0] < WINDOW_S:
            return
        try:
            if not self._found:  # not asked again while they live: it looks at every process
                self._found = [each for each in driver.children(recursive=True) if is_of(each, self._title)]
            used = sum(sum(each.cpu_times()[:2]) for each in self._found)
        except psutil.NoSuchProcess:
            self._found, self._last = [], None
            return
        if not self._found:
            return
        if self._last is not None:
            self._windows.append((used - self._last[1]) / (now - self._last[0]))
        self._last = now, used

    @property
    def median(self) -> float:
        """Over windows of two seconds of their lives, most of which are steady work."""
        return statistics.median(self._windows)


def is_of(process: psutil.Process, title: str) -> bool:
    return title in process.name() or any(title in word for word in process.cmdline())
