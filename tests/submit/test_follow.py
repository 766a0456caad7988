"""What a reader sees of a job's lines, and a stream that is cut. The cluster here is a double; tests/promises has a
real one."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from rich.console import Console

from hfray.submit.attempts import Attempt
from hfray.submit.follow import Page, _follow, ask_what_next

RUNNING, DONE = Attempt("x-1", "x", 1, "RUNNING"), Attempt("x-1", "x", 1, "SUCCEEDED")


def printed(*pieces: str, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=60)
    with Page(console) as page:
        for piece in pieces:
            page.add(piece)
    return cast(io.StringIO, console.file).getvalue()


def test_lines_come_whole_and_rays_own_do_not() -> None:
    told = printed(
        "2026-11-26 14:03:02,685\tINFO job_manager.py:581 -- Runtime env is setting up.\nRunning entrypoint for ",
        "job x-1: exec python\n[0:01] check",
        "ing\n[bold]not markup[/bold]\nthe end",
    )
    assert told == "[0:01] checking\n[bold]not markup[/bold]\nthe end\n"


def test_on_a_terminal_progress_takes_the_place_of_progress() -> None:
    told = printed("[0:01] one\n[0:02] two\nsummary\n", terminal=True)
    assert "[0:01] one\r\x1b[2K[0:02] two" in told  # wiped, not left behind
    assert "one\n" not in told
    assert "summary\n" in told


class Cut:
    """Gives the first pieces, then cuts; the next time all from the begin."""

    where = "http://head:8265"

    def __init__(self) -> None:
        self.client = self
        self.times = 0

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        self.times += 1
        if self.times == 1:
            yield "one\ntw"
            raise RuntimeError("WebSocket connection closed unexpectedly")
        yield "on"
        yield "e\ntwo\nthree\n"

    def attempt(self, submission_id: str) -> Attempt:
        return DONE if self.times == 2 else RUNNING


def test_a_stream_that_is_cut_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfray.submit.follow.AGAIN_S", 0.0)
    pieces: list[str] = []
    ended = asyncio.run(_follow(cast(Any, Cut()), RUNNING, pieces.append, lambda text: None))
    assert "".join(pieces) == "one\ntwo\nthree\n"
    assert ended == DONE


def test_a_reader_that_is_gone_ends_it() -> None:
    """`hfray logs ID --follow | head`: nobody reads on, and there is nothing to take up again."""

    def closed(text: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        asyncio.run(asyncio.wait_for(_follow(cast(Any, Cut()), RUNNING, closed, lambda text: None), 10))


def test_without_a_terminal_nobody_is_asked() -> None:
    assert ask_what_next(Console(file=io.StringIO())) == "detach"
