"""What every body must be before its fields are looked at: short enough, finite, real Unicode. Knows JSON's values; no
field, no task."""

from __future__ import annotations

import math
import re
from typing import Any

from hfray.serving.errors import RequestError
from hfray.serving.hf.call import Limits

MAX_DEPTH = 16
"""Bodies of this protocol nest five deep."""
_MAX_INTEGER = 2**63
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def check_body(body: Any, limits: Limits, *, images: bool = False) -> None:
    """Raises RequestError. images: `inputs` holds images, whose size is checked where they are read."""
    if not isinstance(body, dict):
        raise wrong("", 'the body is not a JSON object; send one such as {"inputs": ...}')
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), body)]
    while waiting:
        path, value = waiting.pop()
        if len(path) > MAX_DEPTH:
            raise wrong(dotted(path[:1]), f"nests more than {MAX_DEPTH} deep")
        if isinstance(value, str):
            _check_text(value, path, None if images and path[0] == "inputs" else limits.max_chars)
        elif isinstance(value, dict):
            for key, each in value.items():
                _check_text(key, path, limits.max_chars)
                waiting.append(((*path, key), each))
        elif isinstance(value, list):
            waiting += [((*path, place), each) for place, each in enumerate(value)]
        else:
            _check_number(value, path)


def wrong(param: str, words: str, *, status: int = 422) -> RequestError:
    """param: the field at fault, "" for the whole body; words: what is wrong with it, and what to do."""
    return RequestError(f"{param}: {words}" if param else words, status=status, param=param or None)


def dotted(path: tuple[str | int, ...]) -> str:
    """`inputs[2].question`. A key that no field would have is a "?": messages repeat no text of a request."""
    shown = (f"[{part}]" if isinstance(part, int) else f".{part if _NAME.fullmatch(part) else '?'}" for part in path)
    return "".join(shown).removeprefix(".")


def _check_text(text: str, path: tuple[str | int, ...], max_chars: int | None) -> None:
    if max_chars is not None and len(text) > max_chars:
        raise _said(path, f"has {len(text):,} characters, and may have {max_chars:,}; send a shorter text")
    if "\x00" in text:
        raise _said(path, "contains a NUL character")
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _said(path, f"contains a lone surrogate at character {error.start}, which is no text") from None


def _check_number(value: Any, path: tuple[str | int, ...]) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise _said(path, "must be a finite number")
    if isinstance(value, int) and not -_MAX_INTEGER <= value < _MAX_INTEGER:
        raise _said(path, "must be a whole number of 64 bits")


def _said(path: tuple[str | int, ...], words: str) -> RequestError:
    return wrong(dotted(path), words if path else f"a key of the body {words}")
