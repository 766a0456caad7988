"""A Ray cluster of several raylets on this machine, in a process of its own; ends with its standard input.

JSON lines: {"add": cpus} answers a node number, {"remove": number} kills that raylet and all it runs,
{"drain": number, "seconds": s} tells it that it has so long to live, as a cloud does before it takes a spot node away.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

OBJECT_STORE_BYTES = 150_000_000


def main() -> None:
    from ray.cluster_utils import Cluster

    common = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    head_cpus = int(sys.argv[1])
    cluster = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": head_cpus, **common})
    nodes: list[Any] = []
    print(cluster.address, flush=True)
    try:
        for line in sys.stdin:
            request = json.loads(line)
            if "add" in request:
                nodes.append(cluster.add_node(num_cpus=request["add"], object_store_memory=OBJECT_STORE_BYTES))
                print(len(nodes) - 1, flush=True)
            elif "drain" in request:
                _drain(cluster.address, nodes[request["drain"]].node_id, request["seconds"])
                print("null", flush=True)
            else:
                cluster.remove_node(nodes[request["remove"]], allow_graceful=False)
                print("null", flush=True)
    finally:
        cluster.shutdown()


def _drain(address: str, node_id: str, seconds: float) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + seconds) * 1000)
    accepted, why = GcsClient(address=address).drain_node(node_id, reason, "taken away", deadline_ms)
    if not accepted:
        raise RuntimeError(why)


if __name__ == "__main__":
    main()
