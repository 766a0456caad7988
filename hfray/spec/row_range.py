"""Ranges of rows, as Python and `datasets` write slices: `1000:2000`, `:10%`, `-500:`. Knows text and numbers."""

from __future__ import annotations

import re

_RANGE = re.compile(r"\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*")


def check_range(text: str) -> str:
    """The text, if it is a range. Raises ValueError that says how to write one."""
    found = _RANGE.fullmatch(text)
    if found is None or not (found[1] or found[2]):
        raise ValueError(f"{text!r} is no range of rows: write 1000:2000, :10% or -500:")
    for end in found.groups():
        if end and end.endswith("%") and not -100 <= int(end[:-1]) <= 100:
            raise ValueError(f"{end} is more than all rows")
    return text


def bounds(text: str | None, num_rows: int, limit: int | None = None) -> tuple[int, int]:
    """(first row, row after the last) among `num_rows`, of which at most `limit` from the first."""
    start, stop = 0, num_rows
    if text is not None:
        found = _RANGE.fullmatch(check_range(text))
        first, last = found.groups() if found is not None else (None, None)
        start = _row(first, num_rows) if first else 0
        stop = max(start, _row(last, num_rows)) if last else num_rows
    return start, stop if limit is None else min(stop, start + limit)


def _row(end: str, num_rows: int) -> int:
    # Percentages are rounded as `datasets` rounds them, so that :10% and 10%: are the two parts of the whole.
    row = round(num_rows * int(end[:-1]) / 100) if end.endswith("%") else int(end)
    return min(max(row + num_rows if end.startswith("-") else row, 0), num_rows)
