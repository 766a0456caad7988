"""What is wrong with a cluster, in the operator's words. Joining and leaving one: tests/promises."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import pytest

from hfray.data.storage import Storage
from hfray.errors import EngineError, SpecError
from hfray.kinds.cluster import Cluster, _probe_node, _warn_if_open, cluster
from tests.kinds.apart import run_apart


@pytest.mark.parametrize(
    "switch",
    [
        "RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR",
        "RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE",
        "RAY_DATA_WEBDATASET_ALLOW_UNSAFE_DESERIALIZATION",
    ],
)
def test_a_switch_that_lets_data_run_code_is_refused(monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    monkeypatch.setenv(switch, "1")
    with cluster() as each, pytest.raises(SpecError, match=f"{switch} is set"):
        each.connect()


@pytest.mark.parametrize(("status", "warned"), [(200, True), (401, False), (403, False)])
def test_a_cluster_that_asks_nobody_for_a_token_is_told_of(
    status: int, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    asked: list[str] = []

    class Dashboard(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Dashboard) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        _warn_if_open(f"127.0.0.1:{server.server_port}")
        thread.join()
        port = server.server_port
    assert asked == ["/api/jobs/"]
    assert ["RAY_ADDRESS=head:6379: this cluster asks nobody" in each for each in caplog.messages] == [True] * warned
    caplog.clear()
    _warn_if_open(f"127.0.0.1:{port}")  # where nobody answers any more
    _warn_if_open(None)
    assert caplog.messages == []


def test_nothing_starts_before_connect() -> None:
    with cluster() as each:
        assert not each.is_local
    Cluster().close()


def test_a_ray_that_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 30)))  # no socket has a path of that length
    with cluster() as each, pytest.raises(EngineError, match=r"Ray did not start on this machine \(.*AF_UNIX path"):
        each.connect()
    assert not each.connected


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


@pytest.mark.slow
def test_a_node_that_has_left_is_not_asked_and_the_others_are() -> None:
    found = run_apart("probing")
    assert found["left"] == []
    assert "does not see the input" in found["problem"]
