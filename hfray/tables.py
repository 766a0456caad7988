"""How the command line prints a table, on a terminal and into a pipe. Knows rich; nothing of hfray."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

PIPE_COLUMNS = 10_000
"""A pipe has no width of its own: one line for each row, so that `grep` finds all of it."""


def new_table(first: str, *others: str) -> Table:
    """Without lines; the first column is never folded."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, no_wrap=True)
    for title in others:
        table.add_column(title, overflow="fold")
    return table


def print_table(table: Table, legend: str = "") -> None:
    """To the standard output."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(table)
    else:
        console = Console(highlight=False, width=PIPE_COLUMNS)
        with console.capture() as captured:
            console.print(table)
        print("\n".join(line.rstrip() for line in captured.get().splitlines()))
    if legend:
        console.print(f"\n[dim]{escape(legend)}[/dim]")
