"""What a worker raised, out of Ray's wrapping."""

from __future__ import annotations

import pytest
from ray.exceptions import RayTaskError

from hfray.errors import DataError, EngineError, HfrayError
from hfray.kinds.ray_errors import as_hfray_error, root_cause


def wrapped(cause: Exception) -> Exception:
    """As Ray raises in the driver what a task raised: of Ray's class and of the cause's."""
    traceback = f"Traceback (most recent call last):\n  in a worker\n{type(cause).__name__}: {cause}\n"
    error: Exception = RayTaskError("score", traceback, cause).as_instanceof_cause()
    assert isinstance(error, RayTaskError)
    assert isinstance(error, type(cause))
    return error


def test_the_root_cause_is_found_through_wrappers_and_circles() -> None:
    error = DataError("the disk is full")
    assert root_cause(wrapped(error), HfrayError) is error
    outer = RuntimeError("the data set could not be executed")
    outer.__cause__ = wrapped(error)
    assert root_cause(outer, HfrayError) is error
    error.__cause__ = error
    assert root_cause(error, OSError) is None


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (wrapped(DataError("full")), DataError, "full"),
        (wrapped(OSError(28, "No space left on device")), DataError, "No space left"),
        (wrapped(ValueError("odd")), EngineError, "a worker failed: ValueError: odd"),
        (RuntimeError(), EngineError, "a worker failed: RuntimeError"),
    ],
)
def test_what_ray_reports_becomes_an_error_of_ours(error: Exception, kind: type[HfrayError], message: str) -> None:
    found = as_hfray_error(error)
    assert type(found) is kind
    assert message in str(found)
    assert "Traceback" not in str(found)
