"""The line that tells how far a job is. Knows counts, time and a console; not where the counts come from.

On a terminal it is one live line; elsewhere one plain line every few seconds and at each change of phase.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hfray.kinds import units

WINDOW_S = 30.0
"""Rates look back at least this long ..."""
WINDOW_CHANGES = 8
"""... and over at least so many updates: shards of a slow model arrive minutes apart."""


@dataclass(frozen=True, slots=True)
class _State:
    phase: str = "starting"
    total_rows: int | None = None
    rows: int = 0
    resumed_rows: int = 0
    tokens: int = 0
    failed: int = 0
    workers: int = 0
    noun: str = "rows"
    loss: float | None = None


class _Rate:
    """Rows and tokens per second over the recent past; falls while nothing arrives."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()

    def start(self, now_s: float) -> None:
        self._samples = deque([(now_s, 0, 0)])

    @property
    def started(self) -> bool:
        return len(self._samples) > 1

    def add(self, now_s: float, rows: int, tokens: int) -> None:
        if rows == self._samples[-1][1] and tokens == self._samples[-1][2]:
            return
        self._samples.append((now_s, rows, tokens))
        while len(self._samples) > WINDOW_CHANGES + 1 and now_s - self._samples[1][0] >= WINDOW_S:
            self._samples.popleft()

    def at(self, now_s: float) -> tuple[float, float]:
        (start_s, rows, tokens), (_, last_rows, last_tokens) = self._samples[0], self._samples[-1]
        elapsed_s = now_s - start_s
        return ((last_rows - rows) / elapsed_s, (last_tokens - tokens) / elapsed_s) if elapsed_s > 0 else (0.0, 0.0)


class Progress:
    """A context manager; nothing is printed before it is entered or after it is left. Thread-safe.

    total_rows: of the whole job, None while unknown; `total` sets it later.
    interval_s: between plain lines where the console is not a terminal.
    """

    def __init__(
        self,
        console: Console,
        total_rows: int | None = None,
        *,
        quiet: bool = False,
        interval_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._quiet = quiet
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.RLock()
        self._state = _State(total_rows=total_rows)
        self._rate = _Rate()
        self._started_s = clock()
        self._rate.start(self._started_s)
        self._live: Live | None = None
        self._printer: threading.Thread | None = None
        self._closing = threading.Event()
        self._printed: _State | None = None

    def __enter__(self) -> Progress:
        self._started_s = self._clock()
        self._rate.start(self._started_s)
        if self._quiet:
            return self
        if self._console.is_interactive:
            self._live = Live(self, console=self._console, refresh_per_second=5, transient=True)
            self._live.start()
        else:
            self._printer = threading.Thread(target=self._print_regularly, name="hfray-progress", daemon=True)
            self._printer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._printer is not None:
            self._closing.set()
            self._printer.join()
            self._printer = None
            if self._state != self._printed:
                self._print()

    def phase(self, text: str) -> None:
        """What is happening: "indexing 3/12 files", "starting workers", "scoring"."""
        with self._lock:
            before, self._state = self._state.phase, replace(self._state, phase=units.printable(text))
            if not self._rate.started:  # waiting for workers is not slow scoring
                self._rate.start(self._clock())
            # A phase that only counts on waits for the next regular line: 10,000 files are not 10,000 lines.
            if self._printer is not None and _wording(before) != _wording(self._state.phase):
                self._print()

    def note(self, text: str) -> None:
        """A line that stays, such as what of the job will not come true."""
        with self._lock:
            if not self._quiet:
                self._console.print(f"note: {units.printable(text)}", markup=False, highlight=False, soft_wrap=True)

    def total(self, rows: int | None, noun: str = "rows") -> None:
        """Sets the number of rows of the whole job, once it is known; noun: what they are called (steps)."""
        with self._lock:
            self._state = replace(self._state, total_rows=rows, noun=noun)

    def begin(self) -> None:
        """Forgets what was counted: what comes now is another thing."""
        with self._lock:
            self._state = _State(phase=self._state.phase)
            self._rate = _Rate()
            self._rate.start(self._clock())

    def update(
        self,
        rows_done: int,
        tokens: int,
        failed: int,
        workers: int,
        *,
        resumed_rows: int = 0,
        loss: float | None = None,
    ) -> None:
        """Sets the counts so far.

        rows_done, failed: of the whole output; resumed_rows: those of rows_done that an earlier run left there;
        tokens: computed in this session. Rates and the time left come from rows_done - resumed_rows only.
        loss: of a training run, lately.
        """
        with self._lock:
            self._state = replace(
                self._state,
                rows=rows_done,
                resumed_rows=resumed_rows,
                tokens=tokens,
                failed=failed,
                workers=workers,
                loss=loss,
            )
            self._rate.add(self._clock(), rows_done - resumed_rows, tokens)

    def rates(self) -> tuple[float, float]:
        """Rows and tokens per second of this session, lately."""
        with self._lock:
            return self._rate.at(self._clock())

    def eta_s(self) -> float | None:
        """Seconds left at the present rate; None if that cannot be said."""
        with self._lock:
            rows_per_s, _ = self.rates()
            if self._state.total_rows is None or not rows_per_s:
                return None
            return max(0, self._state.total_rows - self._state.rows) / rows_per_s

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line that fits: what matters least is left out first, then the bar shrinks."""
        with self._lock:
            state, fields = self._state, self._fields()
        style = {"failed": "red", "phase": "bold", "eta": "bold"}
        room = options.max_width - 1
        for name in ("workers", "tokens", "failed", "elapsed", "rows/s", "loss", "eta"):
            if sum(len(text) + 2 for text in fields.values()) <= room:
                break
            fields.pop(name, None)
        bar_width = min(30, room - sum(len(text) + 2 for text in fields.values()))
        grid = Table.grid(padding=(0, 2, 0, 0))
        cells: list[Text | ProgressBar] = []
        for name, text in fields.items():
            grid.add_column(no_wrap=True)
            cells.append(Text(text, style=style.get(name, "")))
            if name == "phase" and bar_width >= 8 and state.total_rows:
                grid.add_column(width=bar_width - 2)
                cells.append(
                    ProgressBar(
                        total=state.total_rows, completed=state.rows, width=bar_width - 2, complete_style="cyan"
                    )
                )
        grid.add_row(*cells)
        yield grid

    def _fields(self) -> dict[str, str]:
        """The parts of the line by name, in order; those with nothing to say are absent."""
        state, (rows_per_s, tokens_per_s), eta_s = self._state, self.rates(), self.eta_s()
        fields = {"elapsed": units.clock(self._clock() - self._started_s), "phase": state.phase}
        if state.rows or state.workers:
            of = f"/{state.total_rows:,}" if state.total_rows is not None else ""
            fields["rows"] = f"{state.rows:,}{of} {state.noun}"
        if state.loss is not None:
            fields["loss"] = f"loss {units.figure(state.loss)}"
        if rows_per_s:
            fields["rows/s"] = f"{units.count(rows_per_s)} {state.noun}/s"
        if tokens_per_s:
            fields["tokens"] = f"{units.short(tokens_per_s)} tokens/s"
        if state.failed:
            fields["failed"] = f"{state.failed:,} failed"
        if state.workers:
            fields["workers"] = units.plural(state.workers, "worker")
        if eta_s is not None:
            fields["eta"] = f"ETA {units.clock(eta_s)}"
        return fields

    def _print_regularly(self) -> None:
        while not self._closing.wait(self._interval_s):
            self._print()

    def _print(self) -> None:
        with self._lock:
            fields = self._fields()
            self._printed = self._state
            line = f"[{fields.pop('elapsed')}] {'  '.join(fields.values())}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _wording(phase: str) -> str:
    return re.sub(r"[\d.,]+", "#", phase)
