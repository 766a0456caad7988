"""A node for a cluster that listens on loopback, for as long as this process lives: what `ray start --address` does,
which takes a loopback address for this machine's own: `python -m tests.promises.join ADDRESS CPUS AGENT_PORT`."""

from __future__ import annotations

import signal
import sys

from tests.promises.nodes import OBJECT_STORE_BYTES


def main(address: str, cpus: str, agent_port: str) -> None:
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    params = RayParams(
        gcs_address=address, node_ip_address="127.0.0.1", num_cpus=int(cpus), object_store_memory=OBJECT_STORE_BYTES,
        dashboard_agent_listen_port=int(agent_port),
    )  # fmt: skip
    Node(params, head=False, shutdown_at_exit=True, spawn_reaper=False, connect_only=False)
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
