"""What a submitted job prints, as it prints it, until it ends or the reader leaves. Knows a console and Ray's log
stream; not what a job is.

The stream is cut when the head is busy or the link is: it is taken up again, from where it was.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, cast

from rich.console import Console
from rich.live import Live
from rich.text import Text

from hfray.kinds.dashboard import UnreachableError
from hfray.submit.attempts import Attempt
from hfray.submit.submission import ClusterJobs

AGAIN_S = 1.0
SILENT_S = 30.0
"""Without the cluster, until the reader is told."""
_PROGRESS = re.compile(r"\[\d+:\d\d(:\d\d)?\] ")
"""How a job's line of progress begins where there is no terminal (`kinds/progress.py`)."""
_RAYS_OWN = re.compile(r"Running entrypoint for job |\S+ \S+\s+(INFO|WARNING) job_(manager|supervisor)\.py:")


class Page:
    """Prints lines. On a terminal a job's lines of progress take each other's place, as those of `hfray run` do."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(Text(), console=console, transient=True, auto_refresh=False) if console.is_terminal else None
        self._rest = ""

    def __enter__(self) -> Page:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rest:
            self._line(self._rest)
        if self._live is not None:
            self._live.stop()

    def add(self, text: str) -> None:
        """More of what was printed, not always whole lines."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)

    def _line(self, line: str) -> None:
        if _RAYS_OWN.match(line):
            return
        if self._live is not None and _PROGRESS.match(line):
            self._live.update(Text(line, overflow="ellipsis", no_wrap=True), refresh=True)
        else:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def follow(cluster: ClusterJobs, attempt: Attempt, console: Console) -> Attempt:
    """Prints until the job has ended; returns how. Ctrl-C is the caller's."""
    with Page(console) as page:
        return asyncio.run(_follow(cluster, attempt, page.add, lambda text: console.print(f"[dim]{text}[/dim]")))


async def _follow(
    cluster: ClusterJobs, attempt: Attempt, add: Callable[[str], None], say: Callable[[str], None]
) -> Attempt:
    seen, heard_at, told = 0, time.monotonic(), False
    while True:
        at = 0
        async for piece in _printed(cluster, attempt):
            start, at = max(0, seen - at), at + len(piece)
            if start < len(piece):
                add(piece[start:])
            seen = max(seen, at)
        try:
            now = cluster.attempt(attempt.id)
            heard_at, told = time.monotonic(), False
        except UnreachableError:
            now = attempt
        if now is None or not now.ongoing:
            return now or attempt
        if time.monotonic() - heard_at > SILENT_S and not told:
            told = True
            say(f"{cluster.where} does not answer; trying on (Ctrl-C leaves)")
        await asyncio.sleep(AGAIN_S)


async def _printed(cluster: ClusterJobs, attempt: Attempt) -> AsyncIterator[str]:
    """All from the begin, until it ends or is cut; which of them it was, the job's state says. What its reader raises,
    such as a pipe that is closed, is not its own."""
    with suppress(Exception):
        async with aclosing(cast(Any, cluster.client.tail_job_logs(attempt.id))) as pieces:
            async for piece in pieces:
                yield piece


def ask_what_next(console: Console) -> str:
    """After Ctrl-C: "detach", "stop" or "on". Without a terminal nobody can be asked, and the job goes on alone."""
    if not (sys.stdin.isatty() and console.is_terminal):
        return "detach"
    try:
        answer = console.input("\nit runs on: [bold]d[/bold]etach, [bold]s[/bold]top it, or [bold]f[/bold]ollow on? ")
    except (KeyboardInterrupt, EOFError):
        return "detach"
    return {"s": "stop", "f": "on"}.get(answer.strip().lower()[:1], "detach")
