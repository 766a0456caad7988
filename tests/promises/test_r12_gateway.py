"""R12, T3, T4 and what offline and online have in common: keys, quotas over several gateways, overload, models without
a process, the same answers. One `hfray serve` for all tests of this file."""

from __future__ import annotations

import json
import random
import string
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.models.support import save_model
from tests.promises.endpoints import Endpoints, add_key, free_port, kill, load, watched
from tests.promises.rig import environment, within

pytestmark = pytest.mark.slow

OPEN = ("/healthz", "/readyz", "/-/healthz")
SLOW_S = 0.05
CAPACITY_PER_S = 1 / SLOW_S
GATEWAYS, QUEUED, ONGOING = 2, 20, 8
CONNECTIONS = 200
REFUSED_S, FIRST_S = 0.2, 5
WAY_S = 1.0
"""Of an answer, from a client that shares the cores."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Keys by id, and the path of their file."""
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    made = {"path": str(path)}
    for name, *options in (
        ("all",),
        ("weather", "--models", "weather"),
        ("few", "--requests-per-minute", "30"),
    ):
        made[name] = add_key(path, name, *options)
    return made


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory, faults: Path, keys: dict[str, str]) -> Iterator[Endpoints]:
    folder = tmp_path_factory.mktemp("endpoints")
    model = {"path": str(save_model(folder / "weather")), "dtype": "float32"}
    shared = {"model": model, "task": {"name": "text-classification", "top_k": "all"}, "resources": {"cpus": 0.1}}
    each = Endpoints(
        folder,
        faults,
        free_port(),
        gateway={"keys": keys["path"], "replicas": GATEWAYS},
        models={
            "weather": shared,
            "slow": shared
            | {
                "engine": {"name": "fake", "seconds_per_item": SLOW_S},
                "limits": {"max_queued_requests": QUEUED, "max_ongoing_requests": ONGOING, "timeout_s": 20},
            },
            "idle": shared | {"replicas": {"min": 0, "max": 1, "downscale_delay_s": 2}},
        },
    )
    each.start()
    yield each
    assert each.close() == 0, each.text()


def client(endpoints: Endpoints, key: str | None) -> httpx.Client:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=endpoints.url, headers=headers, timeout=60)


def test_every_route_but_health_is_behind_the_keys(endpoints: Endpoints, keys: dict[str, str]) -> None:
    dice = random.Random(0)
    paths = ["/", "/v1/models", "/models/weather", "/v1/chat/completions", "/openapi.json", "/docs", "/metrics"]
    paths += ["/-/routes", "/playground", "/v1/models/weather"]
    paths += ["/" + "".join(dice.choices(string.ascii_letters + "/._-~", k=dice.randint(1, 30))) for _ in range(200)]
    with client(endpoints, None) as nobody, client(endpoints, "hfray-" + "x" * 43) as stranger:
        for path in paths:
            for each in (nobody, stranger):
                for method in ("GET", "POST"):
                    assert each.request(method, path).status_code == 401, path
        assert [nobody.get(path).status_code for path in OPEN] == [200, 200, 200]
    with client(endpoints, keys["all"]) as known:
        assert known.post("/models/weather", json={"inputs": "warm"}).status_code == 200


def test_a_key_sees_its_own_models(endpoints: Endpoints, keys: dict[str, str]) -> None:
    with client(endpoints, keys["weather"]) as known:
        assert [each["id"] for each in known.get("/v1/models").json()["data"]] == ["weather"]
        assert known.post("/models/slow", json={"inputs": "warm"}).status_code == 404
        assert known.post("/models/weather", json={"inputs": "warm"}).status_code == 200


def test_gateways_share_a_quota(endpoints: Endpoints, keys: dict[str, str]) -> None:
    assert len(endpoints.replicas("gateway")) == 2
    statuses: Counter[int] = Counter()
    for _ in range(70):
        with client(endpoints, keys["few"]) as fresh:  # a connection of its own, to either gateway
            response = fresh.post("/models/weather", json={"inputs": "warm"})
        statuses[response.status_code] += 1
        if response.status_code == 429:
            assert int(response.headers["retry-after"]) >= 1
            assert response.json()["error_type"] == "overloaded"
    print(dict(statuses))
    assert set(statuses) == {200, 429}
    refused = ("ray_hfray_requests_total{", 'key="few"', 'status="429"')
    endpoints.wait_until(  # Ray passes them on every ten seconds
        lambda: any(all(each in line for each in refused) for line in endpoints.metrics().splitlines()), 60
    )
    assert 30 <= statuses[200] <= 36, "30 a minute, and what a minute's beginning allows"


@pytest.mark.parametrize("seconds", [8.0, pytest.param(60.0, marks=pytest.mark.chaos)])
def test_overload_is_refused_quickly_and_honestly(endpoints: Endpoints, keys: dict[str, str], seconds: float) -> None:
    pids = endpoints.settled("gateway", GATEWAYS)

    def body(number: int) -> dict[str, Any]:
        return {"inputs": f"text {number}"}

    url = f"{endpoints.url}/models/slow"
    headers = {"authorization": f"Bearer {keys['all']}"}
    started = time.monotonic()
    with watched(pids) as grown, load(url, body, 10 * CAPACITY_PER_S, headers, CONNECTIONS) as seen:
        time.sleep(seconds)
    service_s = (time.monotonic() - started) / seen.statuses["200"]
    answered_s, refused_s = seen.quantile_s(0.99), seen.quantile_s(0.99, "503")
    bound_s = GATEWAYS * (QUEUED + ONGOING) * service_s
    print(
        f"{seen.num} requests in {seconds:.0f} s, {dict(seen.statuses)}; 99 % of the answers within {answered_s:.1f} s "
        f"(bound {bound_s:.1f}), of the refusals within {1000 * refused_s:.0f} ms; gateways grew by "
        f"{[num >> 20 for num in grown.values()]} MiB; /readyz {dict(seen.ready)}"
    )
    assert set(seen.statuses) <= {"200", "503"}, seen.bad
    assert not seen.rude, seen.rude[:3]
    assert seen.statuses["503"] > 0.2 * seen.num
    assert seen.statuses["200"] > 0.3 * seconds * CAPACITY_PER_S
    assert refused_s < within(REFUSED_S)
    assert answered_s < within(bound_s + WAY_S)
    assert max(grown.values()) < 150 * 2**20
    assert set(seen.ready) == {200}
    started = time.monotonic()
    with client(endpoints, keys["all"]) as known:
        while known.post("/models/slow", json={"inputs": "warm"}).status_code != 200:
            assert time.monotonic() - started < within(FIRST_S)
            time.sleep(0.2)


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.chaos)])
def test_a_gateway_that_is_killed_costs_a_client_that_tries_again_nothing(
    endpoints: Endpoints, keys: dict[str, str], kills: int
) -> None:
    """Its open connections break, which a client without a second try sees."""

    def post(text: str) -> int:
        for tries_left in (3, 2, 1, 0):
            try:
                with client(endpoints, keys["all"]) as fresh:
                    return fresh.post("/models/weather", json={"inputs": text}).status_code
            except httpx.TransportError:
                broken.append(text)
                if not tries_left:
                    raise
                time.sleep(0.5)
        raise AssertionError

    broken: list[str] = []
    statuses: Counter[int] = Counter()
    with ThreadPoolExecutor(4) as pool:
        for number in range(kills):
            victim = endpoints.settled("gateway", GATEWAYS)[number % 2]
            answers = [pool.submit(post, f"text {number} {each}") for each in range(100)]
            kill(victim)
            endpoints.wait_until(lambda: victim not in endpoints.replicas("gateway"), 10)  # noqa: B023
            statuses.update(each.result() for each in answers)
    print(f"{kills} kills, {dict(statuses)}, connections that broke: {len(broken)}")
    assert statuses == {200: 100 * kills}
    endpoints.wait_until(lambda: len(endpoints.replicas("gateway")) == 2, 60)


def test_a_model_without_a_process_starts_for_a_request_and_goes(endpoints: Endpoints, keys: dict[str, str]) -> None:
    endpoints.wait_until(lambda: not endpoints.replicas("idle"), 60)
    assert endpoints.ready(), "it can be started, so it counts as ready"
    started = time.monotonic()
    with client(endpoints, keys["all"]) as known:
        assert known.post("/models/idle", json={"inputs": "warm"}).status_code == 200
    print(f"from nothing to an answer in {time.monotonic() - started:.1f} s")
    assert endpoints.replicas("idle")
    endpoints.wait_until(lambda: not endpoints.replicas("idle"), 60)


def test_offline_and_online_give_the_same_answers(endpoints: Endpoints, keys: dict[str, str], tmp_path: Path) -> None:
    dice = random.Random(1)
    letters = string.ascii_lowercase + "   "
    texts = ["".join(dice.choices(letters, k=dice.randint(1, 120))).strip() or "a" for _ in range(500)]
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    spec = endpoints.models["weather"]
    job = {
        "kind": "score", "name": "same", "model": spec["model"], "task": spec["task"],
        "input": {"path": str(source)}, "output": {"path": str(tmp_path / "out")},
    }  # fmt: skip
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "hfray.cli", "run", str(path), "--quiet"]
    subprocess.run(command, check=True, env=environment(endpoints.faults), timeout=300)
    offline = pq.read_table(tmp_path / "out" / "data").column("result").to_pylist()
    online: list[Any] = []
    with client(endpoints, keys["all"]) as known:
        for start in range(0, 500, 50):
            response = known.post("/models/weather", json={"inputs": texts[start : start + 50]})
            online += response.json()
    assert len(online) == 500
    for one, other in zip(offline, online, strict=True):
        assert [each["label"] for each in one] == [each["label"] for each in other]
        scores = [[each["score"] for each in entries] for entries in (one, other)]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


def test_memory_stays_flat(endpoints: Endpoints, keys: dict[str, str]) -> None:
    """At the largest requests that are allowed, and at ten thousand different ones (T13, T20)."""
    pids = endpoints.settled("gateway", GATEWAYS) + endpoints.settled("weather", 1)

    def ask(number: int, texts: int, chars: int) -> None:
        inputs = [(f"{number} {each} " + "word " * chars)[:chars] for each in range(texts)]
        with client(endpoints, keys["all"]) as fresh:  # a connection of its own, to either gateway
            assert fresh.post("/models/weather", json={"inputs": inputs}).status_code == 200

    with ThreadPoolExecutor(8) as pool:
        largest = (64, (2**20 - 1000) // 64)
        list(pool.map(lambda number: ask(number, *largest), range(16)))  # what a process needs for them it keeps
        with watched(pids) as grown_by_large:
            list(pool.map(lambda number: ask(number, *largest), range(16, 32)))
        with watched(pids) as grown_by_many:
            list(pool.map(lambda number: ask(number, 10, 20), range(1000)))
    print(f"16 largest requests: {[num >> 20 for num in grown_by_large.values()]} MiB more; 1,000 requests of ten "
          f"texts: {[num >> 20 for num in grown_by_many.values()]}")  # fmt: skip
    assert max(*grown_by_large.values(), *grown_by_many.values()) < 40 * 2**20


def test_no_log_has_a_key_or_a_text(endpoints: Endpoints, keys: dict[str, str]) -> None:
    planted = "zebra-in-the-snow"
    with client(endpoints, keys["all"]) as known:
        assert known.post("/models/weather", json={"inputs": planted}).status_code == 200
        assert known.post("/models/weather", json={"inputs": [planted, 7]}).status_code == 422
        assert known.post(f"/models/{planted}", json={"inputs": "x"}).status_code == 404
    secrets = [keys["all"], keys["weather"], keys["few"], planted]
    for log in endpoints.logs():
        text = log.read_text(errors="replace")
        assert not [each for each in secrets if each in text], log
