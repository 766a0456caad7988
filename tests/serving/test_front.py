"""What requests cost their key, over real HTTP and a real book of quotas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hfray.serving.keys import KeyRing
from hfray.serving.leases import Leases
from hfray.serving.quota import QuotaBook
from tests.models.support import save_decoder
from tests.serving.front import make_keys
from tests.serving.office import front_of, replica_of, served

pytestmark = pytest.mark.slow
TOKENS_PER_MINUTE = 600
ASK = {"model": "writer", "prompt": "once upon", "max_tokens": 100}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    """With a key of so many tokens a minute."""
    book = QuotaBook()

    async def lease(*arguments: Any) -> tuple[float, float]:
        return book.lease(*arguments)

    path, texts = make_keys(tmp_path, alice={"tokens_per_minute": TOKENS_PER_MINUTE})
    replica, card = replica_of(save_decoder(tmp_path / "writer"), "text-generation")
    front = front_of({"writer": (replica, card)}, leases=Leases(lease))
    with served(front, KeyRing.load(path)) as url, httpx.Client(base_url=url) as client:
        client.headers["authorization"] = f"Bearer {texts['alice']}"
        yield client
    replica.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_fails_costs_nothing(client: httpx.Client, stream: bool) -> None:
    """Each would take a quarter of the quota, if what was set aside for it were not given back."""
    too_long = {**ASK, "prompt": "x " * 200, "stream": stream}
    statuses = [client.post("/v1/completions", json=too_long).status_code for _ in range(12)]
    assert statuses == [422] * 12


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_counted_and_refused_when_they_are_used_up(client: httpx.Client, stream: bool) -> None:
    ask = {**ASK, "min_tokens": 100, "stream": stream}
    statuses = [client.post("/v1/completions", json=ask).status_code for _ in range(12)]
    assert statuses[0] == 200
    assert statuses[-1] == 429
    assert 3 <= statuses.count(200) <= 8, "600 a minute, and 100 and a prompt each"
    refused = client.post("/v1/completions", json=ask)
    assert 1 <= int(refused.headers["retry-after"]) <= 60, "what is refused for now is worth another try"


def test_a_request_without_a_length_sets_the_endpoints_own_aside(client: httpx.Client) -> None:
    several = {"model": "writer", "prompt": "once", "n": 5, "temperature": 1.0}
    refused = client.post("/v1/completions", json=several)
    assert refused.status_code == 422, "five texts of 256 tokens are more than a minute allows; coming again is no use"
    assert "ever allows" in refused.json()["error"]["message"]
    assert "retry-after" not in refused.headers
