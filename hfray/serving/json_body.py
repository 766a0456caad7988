"""A request's bytes as JSON, for senders who mean harm. Knows RFC 8259; not what the value should be.

Refused although Python reads it: NaN and Infinity, numbers that are infinite as floats, a key given twice, nesting
that could overflow the stack, other encodings than UTF-8, halves of surrogate pairs (nothing downstream can encode
them).
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any, Protocol

from hfray.serving.errors import RequestError

MAX_DEPTH = 64
MAX_VALUES = 200_000
# Possessive, and with an end that may be absent: linear in time and without stacked states whatever the text is.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_STEPS = {byte: 1 if byte in b"[{" else -1 for byte in b"[{]}"}
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in _STEPS)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class HasBody(Protocol):
    """A Starlette request, as far as it is needed here."""

    async def body(self) -> bytes: ...


async def read_json(request: HasBody, max_depth: int = MAX_DEPTH) -> Any:
    """The body's value. Raises RequestError, status 400, for a body that is no JSON as above."""
    return parse_json(await request.body(), max_depth)


def parse_json(body: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """`read_json` of bytes that are here already."""
    if not body.strip():
        raise _refused("the body is empty; send JSON")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(f"the body is not UTF-8 text (byte {error.start + 1:,})") from None
    _check_shape(body, max_depth)
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise _refused(f"the body is not JSON: line {error.lineno}, column {error.colno}") from None
    except ValueError:  # a whole number beyond sys.get_int_max_str_digits()
        raise _refused("a number of the body has too many digits") from None
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise _refused("a text of the body has half of a surrogate pair, which is no character") from None
    return value


def _check_shape(body: bytes, max_depth: int) -> None:
    """Before anything is built: a few bytes of JSON can become a hundred times as many of Python's."""
    num_open = body.count(b"[") + body.count(b"{")
    if num_open <= max_depth and body.count(b",") <= MAX_VALUES:
        return  # even if none of them stands in a text
    bare, begin = bytearray(), 0
    for text in _STRING.finditer(body):
        bare += body[begin : text.start()]
        begin = text.end()
    bare += body[begin:]
    if bare.count(b"[") + bare.count(b"{") + bare.count(b",") > MAX_VALUES:
        raise _refused(f"the body has more than {MAX_VALUES:,} values")
    brackets = bare.translate(None, _NO_BRACKETS)
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > max_depth:
        raise _refused(f"the body is nested more than {max_depth} deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _refused("an object of the body gives one key twice")
    return value


def _no_constant(name: str) -> Any:
    raise _refused(f"{name} is not JSON; numbers must be finite")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _refused("a number of the body is too large")
    return value


def _refused(message: str) -> RequestError:
    return RequestError(message, status=400)
