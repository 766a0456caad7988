"""A command at a real terminal: what it shows is read, keys are pressed."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

CTRL_C = "\x03"
_ROWS, _COLUMNS = 40, 160


class Terminal:
    """One end of a pseudo-terminal; the command has the other as its controlling terminal."""

    def __init__(self, fd: int, process: subprocess.Popen[bytes]) -> None:
        self._fd = fd
        self._seen = ""
        self.process = process

    def press(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait_for(self, text: str, seconds: float = 120) -> str:
        """Reads until the text is shown, what came before it included; the next call reads on from there."""
        deadline = time.monotonic() + seconds
        while text not in self._seen:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._fd], [], [], left)[0]:
                raise TimeoutError(f"{text!r} is not shown; there is: {self._seen[-2000:]!r}")
            try:
                self._seen += os.read(self._fd, 65536).decode(errors="replace")
            except OSError:  # the command has ended
                raise AssertionError(f"it ended without {text!r}: {self._seen[-2000:]!r}") from None
        before, _, self._seen = self._seen.partition(text)
        return before + text


@contextmanager
def terminal(command: list[str], env: Mapping[str, str]) -> Iterator[Terminal]:
    """The command at a terminal; it is ended when this is left."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))

    def take() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=dict(env), start_new_session=True, preexec_fn=take
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
