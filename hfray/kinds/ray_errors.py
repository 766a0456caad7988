"""What Ray reports of a worker's failure, as an error of ours. Knows Ray's wrappers; not what the worker did."""

from __future__ import annotations

from typing import Any

from hfray.errors import DataError, EngineError, HfrayError


def root_cause(error: BaseException, wanted: type[BaseException]) -> Any:
    """The first exception of a class in the chain of causes; Ray wraps what a worker raised several times.

    Ray's wrapper is of its cause's class too, with a whole traceback as its message, so it is never the answer.
    """
    from ray.exceptions import RayTaskError

    seen: set[int] = set()
    stack: list[BaseException | None] = [error]
    while stack:
        each = stack.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, wanted) and not isinstance(each, RayTaskError):
            return each
        stack += [getattr(each, "cause", None), each.__cause__, each.__context__]
    return None


def as_hfray_error(error: Exception) -> HfrayError:
    """What a worker raised, out of Ray's wrapping; anything else that Ray reports is for the operator."""
    known = root_cause(error, HfrayError)
    if known is not None:
        return known  # type: ignore[no-any-return]
    full = root_cause(error, OSError)
    if full is not None:
        return DataError(f"a worker could not read or write: {full}")
    lines = [line for line in str(error).splitlines() if line.strip()]
    return EngineError(f"a worker failed: {lines[-1].strip() if lines else type(error).__name__}")
