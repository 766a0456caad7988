"""T1: what the head of a cluster of several machines says to one that has no token."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.promises.endpoints import listening
from tests.promises.head import head, wait_for
from tests.promises.stranger import HERE, SHUT, stranger

AGENTS = 2
"""Processes of a node that come after it has joined."""


@pytest.mark.slow
def test_every_port_of_a_head_refuses_or_asks_for_a_token(tmp_path: Path, faults: Path) -> None:
    with stranger() as other, head(tmp_path, faults, host=HERE) as each:

        def ports() -> dict[int, int]:
            """And whose they are."""
            tree = [process.pid for process in psutil.Process(each.pid).children(recursive=True)]
            return {int(where.rpartition(":")[2]): pid for pid in tree for where in listening({pid})}

        wait_for(lambda: len({pid for pid in ports().values() if _is_agent(pid)}) == AGENTS)
        found = other.finds(ports())
        open_ports = {port: says for port, says in found.items() if says - SHUT}
        assert open_ports, "the link between the machines works"
        for port, says in open_ports.items():  # which no token guards: docs/operations.md
            assert says == {"200"}, (port, says)
            assert httpx.get(f"http://{HERE}:{port}/metrics").text.startswith("# HELP"), port
        guarded = [says for says in found.values() if says & {"UNAUTHENTICATED", "401"}]
        assert len(guarded) >= 5, "of the control store, the raylet and the agents"


def _is_agent(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "Agent" in " ".join(psutil.Process(pid).cmdline())
    return False
