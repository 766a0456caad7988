"""Where output goes: a person's console stays clean, everybody else's chatter lands in a log file.

Knows file descriptors and Python's logging; nothing else of hfray. Ray's C++ core, worker output and child processes
write to descriptors 1 and 2, so the descriptors themselves are turned, not only `sys.stdout`.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console


@contextmanager
def quiet(log_path: Path, *, debug: bool = False) -> Iterator[Console]:
    """Yields a console on the real terminal while descriptors 1 and 2, logging and warnings go to `log_path`.

    debug leaves everything where it is. What was turned is turned back on the way out, also after an exception.
    """
    if debug:
        logging.basicConfig(level=logging.INFO)
        yield Console()
        return
    sys.stdout.flush()
    sys.stderr.flush()
    with ExitStack() as stack:
        terminal = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
        stack.callback(terminal.close)
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor in (1, 2):
            saved = os.dup(descriptor)
            os.dup2(log, descriptor)
            stack.callback(_restore, saved, descriptor)
        os.close(log)
        handler = logging.StreamHandler(stack.enter_context(log_path.open("a", encoding="utf-8", errors="replace")))
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        root.addHandler(handler)
        stack.callback(root.removeHandler, handler)
        stack.enter_context(warnings.catch_warnings())
        logging.captureWarnings(True)
        stack.callback(logging.captureWarnings, False)
        yield Console(file=terminal, force_terminal=None)


def _restore(saved: int, descriptor: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(saved, descriptor)
    os.close(saved)
