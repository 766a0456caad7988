from __future__ import annotations

from hfray.kinds.report import Report
from tests.kinds.test_report import make_report, summary


def test_nothing_is_said_of_what_did_not_happen() -> None:
    text = summary(Report(name="x", kind="score", rows=3, shards=1, wall_s=2.0, output="out/x"))
    for part in ("failed", "unread", "tokens/s", "worker", "model", "retry", "log", "resumed", "generated"):
        assert part not in text
    assert "1.5" in text  # rows over wall time, where no shard was timed


def test_a_narrow_console_keeps_every_figure() -> None:
    text = summary(make_report(), width=40)
    for part in ("1,200", "NullText", "20", "194", "90 MB", "0.875"):
        assert part in text
