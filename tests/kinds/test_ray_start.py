"""What a head is told before it starts; tests/test_cluster_files.py shows it with Ray's own command line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hfray.kinds.ray_start import without_client


@pytest.mark.parametrize(("head", "port"), [(True, None), (False, 10001)])
def test_a_head_gets_no_server_of_ray_client(head: bool, port: int | None) -> None:
    params = SimpleNamespace(ray_client_server_port=10001, gcs_server_port=6379)
    without_client(params, head)
    assert vars(params) == {"ray_client_server_port": port, "gcs_server_port": 6379}
