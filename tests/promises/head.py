"""A cluster as `ray start --head` brings it up, with a token, and the command line that uses it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.promises.endpoints import free_port
from tests.promises.nodes import OBJECT_STORE_BYTES
from tests.promises.rig import PATIENCE_S, REPOSITORY, environment
from tests.promises.terminal import Terminal, terminal

SECRET = "a" * 64
FAKE_HEAD_NODE_ID = "f" * 56
"""By which Ray's fake provider knows the head."""


@dataclass(frozen=True)
class Head:
    """Where it is, and whose token it asks for."""

    address: str
    token: Path
    home: Path
    port: int = 0
    """Of Ray's own protocol, for nodes that join."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Of its processes."""
    pid: int = 0
    """Of `ray start`, whose children they are."""

    @contextmanager
    def node(self, cpus: int = 1) -> Iterator[subprocess.Popen[bytes]]:
        """One more, which has joined when this is entered; it may be killed with all its processes (`end_all`)."""
        known = {each["node_id"] for each in self.nodes()}  # also one that was killed and is not missed yet
        command = [sys.executable, "-m", "tests.promises.join", f"127.0.0.1:{self.port}", str(cpus), str(free_port())]
        with (self.home / "nodes.log").open("a") as log:
            process = subprocess.Popen(command, env=self.env, cwd=REPOSITORY, stdout=log, stderr=log)
        try:
            wait_for(lambda: {each["node_id"] for each in self.nodes()} - known, process)
            yield process
        finally:
            end_all(process)

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        """`hfray ARGS` by somebody who has the token; env: beside the usual variables."""
        pipe = subprocess.PIPE
        return subprocess.Popen(_hfray(args), stdout=pipe, stderr=pipe, text=True, env=self._users(env))

    def at_terminal(self, *args: str) -> AbstractContextManager[Terminal]:
        """The same by somebody who looks at it."""
        return terminal(_hfray(args), self._users({"TERM": "xterm-256color"}))

    def _users(self, env: Mapping[str, str]) -> dict[str, str]:
        settings = {
            "HOME": str(self.home), "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore",
            "RAY_DASHBOARD_ADDRESS": self.address, "RAY_AUTH_TOKEN_PATH": str(self.token),
        }  # fmt: skip
        own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        return {**own, **settings, **env}

    def page(self, path: str) -> str:
        """What its dashboard says to one who has the token."""
        answer = httpx.get(f"{self.address}{path}", headers={"authorization": f"Bearer {SECRET}"}, timeout=60)
        assert answer.status_code == 200, (path, answer.text)
        return answer.text

    def nodes(self) -> list[dict[str, Any]]:
        """Its living nodes, as Ray's state tells of them."""
        found: list[dict[str, Any]] = json.loads(self.page("/api/v0/nodes?detail=1"))["data"]["result"]["result"]
        return [each for each in found if each["state"] == "ALIVE"]

    def hfray(self, *args: str, code: int = 0, **env: str) -> str:
        """What the command printed, once it has ended with `code`."""
        process = self.start(*args, **env)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"{process.returncode}, not {code}:\n{out}{err}"
        return out + err


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[Any] | None = None) -> None:
    """Until it is true. process: what must not end before."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"{process.args} ended with {process.returncode}: {process.communicate()}")
        if time.monotonic() > deadline:
            raise TimeoutError("what the test waits for did not come")
        time.sleep(0.1)


def end_all(process: subprocess.Popen[bytes]) -> None:
    """As a machine ends that loses its power: at once, with all that runs on it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        node = psutil.Process(process.pid)
        for each in [node, *node.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):  # knows a pid that was given to somebody else
                each.kill()
    process.wait()


def _hfray(args: Iterable[str]) -> list[str]:
    return [sys.executable, "-m", "hfray.cli", *args]


def _ray() -> str:
    return str(Path(sys.executable).parent / "ray")


def autoscaling(node_types: dict[str, Any], port: int) -> dict[str, Any]:
    """The configuration of Ray's fake multi-node provider, whose nodes are raylets of this machine: a head that does no
    work, and worker types. The provider's own name wants a file that is not in Ray's wheel."""
    empty: dict[str, Any] = {
        key: []
        for key in (
            "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
            "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude",
            "rsync_filter",
        )
    }  # fmt: skip
    return empty | {
        "cluster_name": "fake",
        "max_workers": 4,
        "idle_timeout_minutes": 1,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "use_node_id_as_ip": True, "disable_node_updaters": True, "disable_launch_config_check": True,
            "launch_multiple": True, "head_node_id": FAKE_HEAD_NODE_ID, "gcs_address": f"127.0.0.1:{port}",
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            **{
                name: {"min_workers": 0, "max_workers": 2, "node_config": {}, **each}
                for name, each in node_types.items()
            },
        },
        "auth": {}, "docker": {}, "file_mounts": {}, "file_mounts_sync_continuously": False,
    }  # fmt: skip


@contextmanager
def head(
    folder: Path,
    faults: Path,
    *,
    with_token: bool = True,
    head_cpus: int = 2,
    node_types: dict[str, Any] | None = None,
    host: str | None = None,
) -> Iterator[Head]:
    """A cluster for as long as this is entered. node_types: nodes that come when work asks for them. host: the address
    where other machines find it; None for loopback. Its ports are its own: there may be another head on this machine.
    """
    port, where = free_port(), free_port()
    token = folder / "token"
    token.write_text(SECRET)
    settings = {
        "RAY_AUTH_MODE": "token" if with_token else "disabled", "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if host is None else "1", "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    command = [
        _ray(), "start", "--head", "--block", f"--port={port}", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={where}", f"--dashboard-agent-listen-port={free_port()}", f"--num-cpus={head_cpus}",
        f"--object-store-memory={OBJECT_STORE_BYTES}", "--include-dashboard=true",
    ]  # fmt: skip
    if host is not None:
        command.append(f"--node-ip-address={host}")
    if node_types is not None:
        config = folder / "autoscaling.json"
        config.write_text(json.dumps(autoscaling(node_types, port)))
        command.append(f"--autoscaling-config={config}")
        settings |= {
            "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }  # fmt: skip
    env = environment(faults) | settings
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    each = Head(f"http://127.0.0.1:{where}", token, folder, port, env, process.pid)
    try:
        wait_for(lambda: _is_up(each), process)
        yield each
    finally:
        process.terminate()
        process.wait(60)


def _is_up(each: Head) -> bool:
    try:
        return bool(each.nodes())
    except (AssertionError, httpx.HTTPError, ValueError, KeyError, TypeError):  # it starts piece by piece
        return False
