"""Where output goes: a person's console stays clean, everybody else's chatter lands in a log file.

Knows file descriptors and Python's logging; nothing else of hfray. Ray's C++ core, worker output and child processes
write to descriptors 1 and 2, so the descriptors themselves are turned, not only `sys.stdout`.
"""

from __future__ import annotations

import contextlib
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
    Raises OSError if the log file cannot be opened; nothing is turned then.
    """
    if debug:
        logging.basicConfig(level=logging.INFO)
        yield Console()
        return
    with ExitStack() as stack:
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        stack.callback(os.close, log)
        terminal = stack.enter_context(os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace"))
        console = Console(file=terminal, width=_terminal_width())
        for descriptor in (1, 2):
            stack.enter_context(_turned(descriptor, log))
        handler = logging.StreamHandler(stack.enter_context(log_path.open("a", encoding="utf-8", errors="replace")))
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        root.addHandler(handler)
        stack.callback(root.removeHandler, handler)
        stack.enter_context(warnings.catch_warnings())
        logging.captureWarnings(True)
        stack.callback(logging.captureWarnings, False)
        yield console


@contextmanager
def _turned(descriptor: int, target: int) -> Iterator[None]:
    """What this process and its children write to a descriptor goes to the target."""
    _flush()
    saved = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        _flush()
        os.dup2(saved, descriptor)
        os.close(saved)


def _flush() -> None:
    """What was printed so far belongs to where the descriptors point now. A full disk must not stop the turning."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _terminal_width() -> int | None:
    """The width where rich cannot find it: it asks descriptors 0 to 2, of which only the first stays a terminal."""
    if os.isatty(0) or not os.isatty(1):
        return None
    return os.get_terminal_size(1).columns or None
