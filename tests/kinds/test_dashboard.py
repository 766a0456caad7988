"""The address of a cluster from outside. What answers there: tests/promises/test_submit.py."""

from __future__ import annotations

import pytest

from hfray.errors import SpecError
from hfray.kinds.dashboard import dashboard_address


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_DASHBOARD_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, "http://127.0.0.1:8265"),
        ("head:8265", "http://head:8265"),
        ("http://10.0.0.1:8265/", "http://10.0.0.1:8265"),
        ("https://[::1]:8265/ray", "https://[::1]:8265/ray"),
    ],
)
def test_what_is_meant(given: str | None, meant: str) -> None:
    assert dashboard_address(given) == meant


def test_variables_and_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://second:1")
    assert dashboard_address(None) == "http://second:1"
    monkeypatch.setenv("RAY_DASHBOARD_ADDRESS", "http://first:1")
    assert dashboard_address(None) == "http://first:1"
    assert dashboard_address("given:1") == "http://given:1"
    monkeypatch.setenv("RAY_DASHBOARD_ADDRESS", "ray://head:10001")
    with pytest.raises(SpecError, match="RAY_DASHBOARD_ADDRESS ray://head:10001: not the address of a dashboard"):
        dashboard_address(None)


@pytest.mark.parametrize(
    "given", ["ray://head:10001", "http:/x", "http://user:secret@head:8265", "a b", "http://h:8265/?x"]
)
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(SpecError, match="not the address of a dashboard"):
        dashboard_address(given)
