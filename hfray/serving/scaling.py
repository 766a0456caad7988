"""How many replicas a model should have. Knows what replicas report of requests; nothing else: Ray Serve's controller
takes this file by value, so it imports nothing of hfray.

Ray's own policy counts calls, and a call of a gateway carries many requests. So each call says how many requests its
gateway has for the model, and a replica reports the sum over gateways.
"""

from __future__ import annotations

import math
from typing import Any

SEEN = "requests_at_gateways"
OWN = "requests_here"


def requests_per_replica(context: Any) -> tuple[int, dict[str, Any]]:
    """A Ray Serve autoscaling policy: as many replicas as keep `target_ongoing_requests` each."""
    running = context.current_num_replicas
    if running == 0:
        return context.target_num_replicas, {}
    reported = context.aggregated_metrics or {}
    at_gateways = max(reported.get(SEEN, {}).values(), default=0.0)
    here = sum(reported.get(OWN, {}).values())
    requests = max(at_gateways, here, float(context.total_queued_requests or 0))
    return math.ceil(requests / context.config.get_target_ongoing_requests()), {}
