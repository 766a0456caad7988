"""What `ray start` has no option for. cluster.yaml names a function here as RAY_START_HOOK; Ray calls it with what it
was told, before it starts anything. Knows nothing of hfray.
"""

from __future__ import annotations

from typing import Any


def without_client(params: Any, head: bool) -> None:
    """No server of Ray Client, which Ray starts on port 10001 of the head unless grpc is missing. hfray has no use for
    it: it is one door more for code."""
    if head:
        params.ray_client_server_port = None
