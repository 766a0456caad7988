"""Which nodes a selector means."""

from __future__ import annotations

import pytest

from hfray.spec.labels import has_labels


@pytest.mark.parametrize(
    ("selector", "places"),
    [
        ("spot", {"spot"}),
        ("!spot", {"on-demand", None}),
        ("in(spot, on-demand)", {"spot", "on-demand"}),
        ("!in(spot,on-demand)", {None}),
    ],
)
def test_labels_select_the_nodes_that_ray_would(selector: str, places: set[str | None]) -> None:
    nodes = {kind: {} if kind is None else {"ray.io/market-type": kind} for kind in ("spot", "on-demand", None)}
    assert {kind for kind, node in nodes.items() if has_labels(node, {"ray.io/market-type": selector})} == places
    assert all(has_labels(node, {}) for node in nodes.values())
