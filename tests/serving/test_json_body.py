"""Bytes that are JSON, and all the others."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfray.serving.errors import RequestError
from hfray.serving.json_body import MAX_DEPTH, MAX_VALUES, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)


@settings(max_examples=100, deadline=None)
@given(VALUES, st.booleans())
def test_json_is_read(value: Any, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8")) == value


@pytest.mark.parametrize(
    "body",
    [
        b"", b"  ", b"{", b"nul", b"[1,]", b"{'a': 1}", b"1 2", b"\xff", b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"), b"NaN", b"-Infinity", b"[Infinity]", b"1e400", b"-1e999", b"9" * 5000,
        b'{"a": 1, "a": 1}', b'[{"b": {"c": 1, "c": 2}}]', b'{"a": 1, "\\u0061": 2}', b'"\\ud800"', b'{"\\uDFFF": 1}',
        b'"a\nb"', b'"a\x00b"', b"[" * 10_000 + b"]" * 10_000, b"[" * 1_000_000, b'{"a":' * 100_000, b'"\\', b"\\",
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), b"]" * 100 + b"[" * 200_000,
    ],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_what_is_no_json_is_a_400(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        parse_json(body)
    assert caught.value.status == 400
    assert caught.value.message.isprintable()


def test_a_message_holds_no_input() -> None:
    for body in (b'{"secret-word": }', b'{"secret-word": 1, "secret-word": 2}', b"secret-word"):
        with pytest.raises(RequestError) as caught:
            parse_json(body)
        assert "secret" not in caught.value.message


def test_depth_counts_brackets_outside_of_texts() -> None:
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert parse_json(json.dumps(["[" * 1000, '"[' * 1000, "\\" * 999 + "[" * 1000]).encode())
    with pytest.raises(RequestError):
        parse_json(b"[[[]]]", max_depth=2)


def test_values_are_counted_outside_of_texts() -> None:
    assert len(parse_json(b"[" + b"1," * (MAX_VALUES - 2) + b"1]")) == MAX_VALUES - 1
    assert parse_json(json.dumps(["," * MAX_VALUES, "[{" * MAX_VALUES]).encode())
    for piece in (b"1,", b"[],", b"{},"):
        with pytest.raises(RequestError, match="200,000 values"):
            parse_json(b"[" + piece * (MAX_VALUES + 1) + b"1]")


def test_pairs_of_surrogates_are_a_character() -> None:
    assert parse_json(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


@pytest.mark.parametrize("piece", [b'\\"', b"\\", b'"', b"\\\\", b'[]"', b"\\ud83d\\ude00", b'"\\"'])
@pytest.mark.parametrize("start", [b"", b'"'])
def test_a_mebibyte_of_anything_takes_no_time_and_little_memory(start: bytes, piece: bytes) -> None:
    body = (start + piece * (1 << 20))[: 1 << 20]
    tracemalloc.start()
    begun_s = time.process_time()
    try:
        parse_json(body)
    except RequestError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert time.process_time() - begun_s < 5  # some milliseconds; tracing and other load multiply them
    assert peak < 12 << 20
