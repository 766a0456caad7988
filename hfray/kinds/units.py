"""Numbers, times and untrusted words as a person reads them. Knows plain values; nothing else of hfray."""

from __future__ import annotations

from datetime import UTC, datetime


def count(value: float) -> str:
    """1234567 -> "1,234,567"; rates below 100 keep three digits: 3.256 -> "3.26"."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def short(value: float) -> str:
    """At most three digits for an axis: 1500 -> "1.5k", 2_000_000 -> "2M", 0.25 -> "0.25"."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def figure(value: float | None, digits: int = 4) -> str:
    """A metric or a loss: 0.875, "n/a" for one that is not finite."""
    return "n/a" if value is None else f"{value:.{digits}g}"


def flops(per_second: float) -> str:
    """989.4e12 -> "989 TFLOP/s", 217e9 -> "217 GFLOP/s"."""
    unit, factor = ("TFLOP/s", 1e12) if per_second >= 1e12 else ("GFLOP/s", 1e9)
    return f"{count(per_second / factor)} {unit}"


def percent(part: float, whole: float) -> str:
    """1, 1000 -> "0.1 %"; something is never rounded to "0 %", nor something short of all to "100 %"."""
    if not whole or not part:
        return "0 %"
    share = 100 * part / whole
    if share < 0.01:
        return "<0.01 %"
    if 99.9 <= share < 100:
        return ">99.9 %"
    if share == 100:
        return "100 %"
    return f"{share:.2g} %" if share < 1 else f"{share:.1f} %"


def size(num_bytes: float) -> str:
    """90_000_000 -> "90 MB"; powers of 1000."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes:.0f} bytes"


def duration(seconds: float) -> str:
    """0.32 -> "0.32 s", 75 -> "1m 15s", 7260 -> "2h 01m", 180000 -> "2d 02h"."""
    if round(seconds, 1) < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest_s:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h {minutes:02d}m"
    return f"{hours // 24}d {hours % 24:02d}h"


def clock(seconds: float) -> str:
    """75 -> "1:15", 7265 -> "2:01:05"."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest_s:02d}" if hours else f"{minutes}:{rest_s:02d}"


def moment(unix_s: float) -> str:
    """Unix time -> "2026-03-01 14:02:11 UTC"."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plural(number: int, noun: str) -> str:
    """1, "row" -> "1 row"; 2 -> "2 rows"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def printable(text: str) -> str:
    """`text` on one line, without what could steer a terminal: control, bidirectional and surrogate characters."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))
