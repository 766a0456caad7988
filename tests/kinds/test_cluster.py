"""What is wrong with a cluster, in the operator's words. Joining and leaving one: tests/promises."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from hfray.data.storage import Storage
from hfray.errors import DataError, EngineError, HfrayError, SpecError
from hfray.kinds.cluster import Cluster, _probe_node, as_hfray_error, cluster, root_cause


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


def test_a_switch_that_lets_data_run_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE", "1")
    with cluster() as each, pytest.raises(SpecError, match="RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE is set"):
        each.connect()


def test_nothing_starts_before_connect() -> None:
    with cluster() as each:
        assert not each.is_local
    Cluster().close()


def test_a_node_says_what_it_does_not_see(tmp_path: Path) -> None:
    output = Storage(str(tmp_path / "out"))
    output.make_dirs()
    output.replace("probe", b"hfray")
    source = tmp_path / "in.jsonl"
    source.write_text("{}\n")
    assert _probe_node([str(source), str(tmp_path)], output, "probe") is None
    assert "does not see the input" in str(_probe_node([str(tmp_path / "gone")], output, "probe"))
    assert "probe-2" in str(_probe_node([], output, "probe-2"))
    output.replace("probe", b"other")
    assert "does not see the output" in str(_probe_node([], output, "probe"))
