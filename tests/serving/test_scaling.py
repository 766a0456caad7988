"""How many replicas a load asks for. Ray Serve gives the policy a context; here it is its own class."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hfray.serving.scaling import OWN, SEEN, requests_per_replica


def context(running: int, *, seen: list[float], own: list[float], queued: float = 0.0, target: float = 8.0) -> Any:
    reported = {SEEN: dict(enumerate(seen)), OWN: dict(enumerate(own))} if seen or own else None
    return SimpleNamespace(
        current_num_replicas=running,
        target_num_replicas=running,
        aggregated_metrics=reported,
        total_queued_requests=queued,
        config=SimpleNamespace(get_target_ongoing_requests=lambda: target),
    )


@pytest.mark.parametrize(
    ("running", "seen", "own", "queued", "wanted"),
    [
        (1, [32.0], [4.0], 0.0, 4),  # a call carries many requests; the gateways know how many
        (2, [32.0, 31.0], [4.0, 4.0], 0.0, 4),  # every replica hears of all gateways: their sum is told twice
        (3, [0.0, 0.0, 0.0], [10.0, 10.0, 5.0], 0.0, 4),  # long texts, and no new call for a while
        (1, [1.0], [1.0], 0.0, 1),
        (2, [0.0, 0.0], [0.0, 0.0], 0.0, 0),
        (1, [], [], 17.0, 3),  # nothing reported yet
    ],
)
def test_replicas_follow_requests(
    running: int, seen: list[float], own: list[float], queued: float, wanted: int
) -> None:
    assert requests_per_replica(context(running, seen=seen, own=own, queued=queued))[0] == wanted


def test_it_is_by_value_what_ray_serve_takes() -> None:
    """The controller unpickles it where hfray need not be installed."""
    import pickle

    import cloudpickle

    import hfray.serving.scaling as module

    cloudpickle.register_pickle_by_value(module)
    try:
        assert b"hfray.errors" not in (data := cloudpickle.dumps(requests_per_replica))
        assert pickle.loads(data)(context(1, seen=[9.0], own=[]))[0] == 2  # noqa: S301  # made two lines above
    finally:
        cloudpickle.unregister_pickle_by_value(module)
