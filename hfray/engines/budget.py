"""How much an engine computes at once. Counts; knows no memory."""

from __future__ import annotations

PATIENCE = 1024


class Budget:
    """Tokens of a batch or a step. Halved when memory runs out; doubled again when `PATIENCE` of them have worked in a
    row, because what took the memory may be gone: another process on the device, one long input. Where that fails, it
    is tried half as often."""

    def __init__(self, most: int) -> None:
        self.now = most
        self._most = most
        self._patience = PATIENCE
        self._num_worked = 0
        self._grown = False

    def ran_out(self, num_tokens: int) -> None:
        """num_tokens: what it ran out with."""
        self.now = max(1, num_tokens // 2)
        self._num_worked = 0
        if self._grown:
            self._patience *= 2
            self._grown = False

    def worked(self) -> None:
        if self.now >= self._most:
            return
        self._num_worked += 1
        if self._num_worked >= self._patience:
            self.now = min(self._most, 2 * self.now)
            self._num_worked = 0
            self._grown = True
