"""Lines that hold only what they may."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from hfray.serving import access_log
from hfray.serving.keys_file import Key

EVIL = ["a\r\nb", "\x1b[31mred", "\x7f\x80\x9b", "\u2028\u2029\u202e", "\x00", "\ud800", '"}\n{"', "x" * 10_000]


def line_of(caplog: pytest.LogCaptureFixture, scope: dict[str, Any], **state: Any) -> tuple[str, dict[str, Any]]:
    caplog.clear()
    caplog.set_level(logging.INFO, "hfray.access")
    scope = {"method": "GET", "path": "/", **scope, "state": {"request_id": "r", **state}}
    access_log.write(scope, status=200, ms=1.26, in_bytes=1, out_bytes=2, cut=False)
    [record] = caplog.records
    return record.getMessage(), json.loads(record.getMessage())


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("place", ["method", "path", "model"])
def test_no_text_breaks_or_steers(caplog: pytest.LogCaptureFixture, text: str, place: str) -> None:
    scope = {place: text} if place != "model" else {}
    line, value = line_of(caplog, scope, **({"model": text} if place == "model" else {}))
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 2000
    wanted = {"method": text[:128], "model": text[:128], "path": "/?"}[place]
    assert value["route" if place == "path" else place] == wanted


def test_what_a_line_says(caplog: pytest.LogCaptureFixture) -> None:
    key = Key(id="alice", sha256="a" * 64)
    trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
    line, value = line_of(
        caplog, {"path": "/v1/x"}, key=key, traceparent=trace, model="m", num_tokens=7, other=object()
    )
    assert value == {
        "method": "GET", "route": "/v1", "status": 200, "ms": 1.3, "request_id": "r", "trace_id": "ab" * 16,
        "key": "alice", "model": "m", "in_bytes": 1, "out_bytes": 2, "num_tokens": 7,
    }  # fmt: skip
    assert key.sha256 not in line


def test_what_cannot_be_written_costs_no_request(caplog: pytest.LogCaptureFixture) -> None:
    assert line_of(caplog, {}, model=object())[1]["model"] == "object"
