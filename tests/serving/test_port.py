"""A gateway's port, with other programs on it that are processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hfray.errors import SpecError
from hfray.serving.port import check_free, listen

SHARES = """
import socket, sys
found = socket.socket()
found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
found.bind((sys.argv[1], 0))
found.listen()
print(found.getsockname()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def program(host: str = "127.0.0.1", title: str = sys.executable) -> Iterator[tuple[int, int]]:
    """One that would share its port; yields it and the pid."""
    command = [title, "-c", SHARES, host]
    with subprocess.Popen(
        command, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("title", [sys.executable, "ray::ServeReplica:gateway:gateway"])
def test_a_port_is_not_shared_with_programs_of_no_or_another_cluster(host: str, title: str) -> None:
    with program(host, title) as (port, pid):
        for refused in ("127.0.0.1", "0.0.0.0"):
            with pytest.raises(SpecError, match=rf"{refused}:{port} is listened on by process {pid}, .*choose another"):
                listen(refused, port)
    listen("127.0.0.1", port).close()


def test_another_address_of_this_machine_is_another_port() -> None:
    with program("127.0.0.2") as (port, _):
        listen("127.0.0.1", port).close()


def test_rays_own_proxy_is_told_by_name() -> None:
    with program(title="ray::ProxyActor") as (port, _), pytest.raises(SpecError, match=r"OPTIMIZED .* unset"):
        listen("127.0.0.1", port)


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with program() as (port, _):
        path = tmp_path / "endpoints.yaml"
        path.write_text(
            "proxy_location: Disabled\n"
            "applications:\n"
            f"- {{name: front, import_path: hfray.serving.app:gateway, args: {{port: {port}}}}}\n"
            "- {name: some, import_path: hfray.serving.app:model, route_prefix: null, "
            "args: {model: {path: some}, task: feature-extraction}}\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "hfray.cli", "serve", str(path)], capture_output=True, text=True, timeout=60,
            env=environment | {"RAY_SERVE_ENABLE_HA_PROXY": "1"}, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"127.0.0.1:{port} cannot be listened on" in done.stderr
    assert "RAY_SERVE_ENABLE_HA_PROXY is set" in done.stdout
    assert "starting" not in done.stdout
    check_free("127.0.0.1", port)
