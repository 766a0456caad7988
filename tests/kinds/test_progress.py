from __future__ import annotations

import io
import threading
import time

import pytest
from rich.console import Console

from hfray.kinds.progress import WINDOW_CHANGES, Progress


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def terminal(width: int = 120) -> Console:
    return Console(
        file=io.StringIO(), width=width, force_terminal=True, force_interactive=True, _environ={"TERM": "xterm"}
    )


def line(progress: Progress, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(progress)
    return text(console)


def test_plain_lines(console: Console, clock: Clock) -> None:
    with Progress(console, 1000, interval_s=3600, clock=clock) as progress:
        progress.phase("indexing 1/12 files")
        progress.phase("indexing 2/12 files")  # waits for the interval
        clock.now_s += 5
        progress.phase("scoring")
        clock.now_s += 10
        progress.update(200, 5000, 3, 2)
    assert text(console).splitlines() == [
        "[0:00] indexing 1/12 files",
        "[0:05] scoring",
        "[0:15] scoring  200/1,000 rows  20 rows/s  500 tokens/s  3 failed  2 workers  ETA 0:40",
    ]


def test_the_last_line_is_not_repeated(console: Console, clock: Clock) -> None:
    with Progress(console, interval_s=3600, clock=clock) as progress:
        progress.phase("scoring")
    assert text(console) == "[0:00] scoring\n"


def test_lines_come_regularly_and_stop(console: Console) -> None:
    with Progress(console, 10, interval_s=0.02) as progress:
        progress.phase("starting workers")
        time.sleep(0.3)
    lines = text(console).splitlines()
    assert len(lines) >= 3
    assert set(lines) == {"[0:00] starting workers"}
    assert not [thread for thread in threading.enumerate() if thread.name == "hfray-progress"]
    time.sleep(0.06)
    assert text(console).splitlines() == lines


def test_quiet(clock: Clock) -> None:
    for console in (Console(file=io.StringIO()), terminal()):
        before = threading.active_count()
        with Progress(console, 10, quiet=True, interval_s=0.01, clock=clock) as progress:
            progress.phase("scoring")
            progress.update(5, 5, 0, 1)
            progress.note("workers.max is not reached")
            assert threading.active_count() == before
        assert text(console) == ""


def test_resumed_rows_are_no_speed(console: Console, clock: Clock) -> None:
    progress = Progress(console, 10_000, clock=clock)
    progress.phase("scoring")
    clock.now_s += 1
    progress.update(8000, 0, 0, 2, resumed_rows=8000)
    assert progress.rates() == (0, 0)
    assert progress.eta_s() is None
    clock.now_s += 9
    progress.update(8100, 1000, 0, 2, resumed_rows=8000)
    assert progress.rates() == (10, 100)
    assert progress.eta_s() == 190
    progress.update(9100, 1000, 0, 2, resumed_rows=9000)  # more is found on the way
    assert progress.rates() == (10, 100)
    assert progress.eta_s() == 90


def test_waiting_for_workers_is_not_slow_scoring(console: Console, clock: Clock) -> None:
    progress = Progress(console, 1000, clock=clock)
    progress.phase("starting workers")
    clock.now_s += 500
    progress.phase("scoring")
    clock.now_s += 10
    progress.update(100, 100, 0, 1)
    assert progress.rates() == (10, 10)
    progress.phase("writing the report")  # a later phase keeps the rate
    assert progress.rates() == (10, 10)


def test_the_rate_follows_the_recent_past(console: Console, clock: Clock) -> None:
    progress = Progress(console, None, clock=clock)
    rows = 0
    for _ in range(50):
        clock.now_s += 2
        rows += 20
        progress.update(rows, 0, 0, 1)
    for _ in range(16):  # twice as fast, for 32 s
        clock.now_s += 2
        rows += 40
        progress.update(rows, 0, 0, 1)
    assert progress.rates()[0] == pytest.approx(20)
    assert progress.eta_s() is None  # the total is not known
    clock.now_s += 90  # nothing arrives: the rate falls
    assert progress.rates()[0] < 8


def test_rare_updates_give_a_steady_rate(console: Console, clock: Clock) -> None:
    progress = Progress(console, 10**6, clock=clock)
    for index in range(1, 40):
        clock.now_s += 100
        progress.update(index * 1000, 0, 0, 1)
        progress.update(index * 1000, 0, 0, 1)  # no news
        assert progress.rates()[0] == pytest.approx(10)
    assert len(progress._rate._samples) == WINDOW_CHANGES + 1


def test_the_live_line_fits_any_width(console: Console, clock: Clock) -> None:
    progress = Progress(console, 1_000_000, clock=clock)
    progress.phase("scoring")
    clock.now_s += 60
    progress.update(250_000, 10_000_000, 12, 8)
    wide = line(progress, 140)
    for part in ("1:00", "scoring", "━", "250,000/1,000,000 rows", "4,167 rows/s", "167k tokens/s", "12 failed",
                 "8 workers", "ETA 3:00"):  # fmt: skip
        assert part in wide
    for width in (140, 100, 80, 60, 40, 20):
        shown = line(progress, width)
        assert shown.count("\n") == 1
        assert len(shown.rstrip("\n")) <= width
        assert width < 40 or "scoring" in shown
    assert "ETA" in line(progress, 60)
    assert "250,000/1,000,000" in line(progress, 40)


def test_live_line_on_a_terminal(clock: Clock) -> None:
    console = terminal()
    with Progress(console, 100, clock=clock) as progress:
        progress.phase("scoring \x1b[2J[red]")
        clock.now_s += 1
        progress.update(50, 100, 0, 1)
        progress.total(200)
        progress.note("workers.max [8]\x1b is not reached")
    shown = text(console)
    assert "50/200 rows" in shown
    assert "\x1b[2J" not in shown
    assert "note: workers.max [8]" in shown
    assert "[red]" in shown
    assert shown.rstrip("\n").endswith("\x1b[2K")  # the line is wiped: the summary takes its place


def test_an_exception_passes_and_cleans_up(console: Console) -> None:
    with pytest.raises(KeyError), Progress(console, 1, interval_s=60):
        raise KeyError("x")
    assert not [thread for thread in threading.enumerate() if thread.name == "hfray-progress"]


def test_what_begins_is_counted_anew(console: Console, clock: Clock) -> None:
    with Progress(console, 100, interval_s=3600, clock=clock) as progress:
        clock.now_s += 10
        progress.update(100, 2_000, 3, 2)
        progress.begin()
        progress.total(10, "steps")
        progress.phase("training")
        clock.now_s += 10
        progress.update(5, 100, 0, 1)
    last = text(console).splitlines()[-1]
    assert last == "[0:20] training  5/10 steps  0.5 steps/s  10 tokens/s  1 worker  ETA 0:10"


def test_a_training_run_counts_steps(console: Console, clock: Clock) -> None:
    with Progress(console, interval_s=3600, clock=clock) as progress:
        progress.total(938, "steps")
        progress.phase("training")
        clock.now_s += 10
        progress.update(105, 20_000, 0, 2, resumed_rows=100, loss=0.41234)
    assert text(console).splitlines()[-1] == (
        "[0:10] training  105/938 steps  loss 0.4123  0.5 steps/s  2k tokens/s  2 workers  ETA 27:46"
    )
    assert "loss" in line(progress, 80)
    assert "loss" not in line(progress, 40)
