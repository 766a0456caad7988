"""Somebody on another machine: a network namespace with one link to this one, from which every port that processes
listen on is asked for all that Ray answers to, without a token. Also the program that asks, from inside:
`python -m tests.promises.stranger ADDRESS PORT...` prints a finding a line."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import os
import pkgutil
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.promises.rig import REPOSITORY

HERE, THERE = "198.18.77.1", "198.18.77.2"
"""Of the block that RFC 2544 keeps for tests of networks."""
CALL_S = 5.0
WITHOUT_PYTHON = ("/ray.rpc.ObjectManagerService/Push", "/ray.rpc.ObjectManagerService/Pull")
"""Methods of raylets for raylets. syncer.RaySyncer/StartSync is not asked: Ray's raylet ends on one that is no stream,
whoever sends it (docs/operations.md)."""
HTTP_PATHS = ("/", "/api/jobs/", "/api/version", "/api/serve/applications/", "/api/v0/nodes", "/metrics")
REFUSED = "refused"
SHUT = {REFUSED, "UNAUTHENTICATED", "UNIMPLEMENTED", "401", "403"}
"""What may be found behind a port: nobody, or somebody who asks for a token."""


@dataclass(frozen=True)
class Stranger:
    """A machine beside this one."""

    namespace: str

    def finds(self, ports: Iterable[int]) -> dict[int, set[str]]:
        """What each port says to those who have no token: `refused`, statuses of HTTP, codes of gRPC."""
        command = ["ip", "netns", "exec", self.namespace, sys.executable, "-m", __name__, HERE, *map(str, ports)]
        env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        env |= {"HOME": "/nonexistent", "PYTHONWARNINGS": "ignore"}  # without a token, as Ray would look for it
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=REPOSITORY, timeout=300)
        assert done.returncode == 0, done.stderr
        return {found["port"]: set(found["says"]) for found in map(json.loads, done.stdout.splitlines())}


@contextmanager
def stranger() -> Iterator[Stranger]:
    """Skips where this process may not make networks."""
    if shutil.which("ip") is None:
        pytest.skip("no `ip`: install iproute2")
    name, link = f"hfray-{os.getpid()}", f"hf{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
    inside = ["ip", "netns", "exec", name, "ip"]
    try:
        between = ["ip", "link", "add", link, "type", "veth", "peer", "name", "out", "netns", name]
        linked = subprocess.run(between, capture_output=True, text=True)
        if linked.returncode:
            pytest.skip(f"no link between network namespaces can be made here: {linked.stderr.strip()}")
        for command in (
            ["ip", "addr", "add", f"{HERE}/30", "dev", link],
            ["ip", "link", "set", link, "up"],
            [*inside, "addr", "add", f"{THERE}/30", "dev", "out"],
            [*inside, "link", "set", "out", "up"],
        ):
            subprocess.run(command, check=True, capture_output=True)
        yield Stranger(name)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)  # and the link with it


def main(address: str, *ports: str) -> None:
    methods = list(_methods())
    for port in ports:
        says = (
            {REFUSED}
            if not _answers(address, int(port))
            else _http(address, int(port)) | _grpc(f"{address}:{port}", methods)
        )
        print(json.dumps({"port": int(port), "says": sorted(says)}), flush=True)


def _answers(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=CALL_S):
        return True
    return False


def _http(address: str, port: int) -> set[str]:
    """Statuses; nothing where another protocol is spoken."""
    found = set()
    for path in HTTP_PATHS:
        connection = http.client.HTTPConnection(address, port, timeout=CALL_S)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", path)
            found.add(str(connection.getresponse().status))
    return found


def _grpc(where: str, methods: list[str]) -> set[str]:
    """Codes of all that Ray and Ray Serve can be told to do; nothing where another protocol is spoken."""
    import grpc

    found = set()
    with grpc.insecure_channel(where) as channel:
        try:
            grpc.channel_ready_future(channel).result(CALL_S)
        except grpc.FutureTimeoutError:
            return set()
        for method in methods:
            call: Any = channel.unary_unary(method)
            try:
                call(b"", timeout=CALL_S)
                found.add("OK")
            except grpc.RpcError as error:
                found.add(error.code().name)
    return found


def _methods() -> Iterator[str]:
    import ray.core.generated
    from ray.serve.generated import serve_pb2

    yield from WITHOUT_PYTHON
    modules: list[Any] = [serve_pb2]
    for each in pkgutil.iter_modules(ray.core.generated.__path__):
        if each.name.endswith("_pb2"):
            modules.append(importlib.import_module(f"ray.core.generated.{each.name}"))
    for module in modules:
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}"


if __name__ == "__main__":
    main(*sys.argv[1:])
