"""R10, R11, R14 and the shape of issue 6: replicas die, versions roll, models fall ill and come and go, and clients see
none of it. One `hfray serve` for all tests of this file."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.models.lora_support import save_lora
from tests.models.support import save_decoder, save_model
from tests.promises.endpoints import Endpoints, free_port, kill, listening, load
from tests.promises.rig import within
from tests.promises.stranger import REFUSED, stranger
from tests.serving.test_fuzz import fuzz

pytestmark = pytest.mark.slow

RATE_PER_S = 25
MANY = 3_000
"""Requests of a promise's long form."""
BACK_S = 10
ADAPTERS = ("pirate", "poet")


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory, faults: Path) -> Iterator[Endpoints]:
    folder = tmp_path_factory.mktemp("endpoints")
    decoder = save_decoder(folder / "decoder", max_length=4096)
    adapters = folder / "adapters"
    for seed, name in enumerate(ADAPTERS):
        model = AutoModelForCausalLM.from_pretrained(decoder)
        save_lora(model, adapters / name, seed=seed, target_modules=["q_proj", "v_proj", "down_proj"])
    few = {"cpus": 0.1}
    each = Endpoints(
        folder,
        faults,
        free_port(),
        models={
            "weather": {
                "model": {"path": str(save_model(folder / "weather")), "dtype": "float32"},
                "task": {"name": "text-classification", "top_k": 3},
                "replicas": 2,
                "resources": few,
                "health_timeout_s": 6,
                "drain_s": 10,
            },
            "writer": {
                "model": {"path": str(decoder), "dtype": "float32"},
                "task": {"name": "text-generation", "max_new_tokens": 16},
                "adapters_folder": str(adapters),
                "resources": few,
                "drain_s": 10,
            },
        },
    )
    each.start()
    yield each
    assert each.close() == 0, each.text()
    assert not each.tree()


@pytest.fixture(autouse=True)
def well(endpoints: Endpoints) -> Iterator[None]:
    yield
    for name in ("model", "model-pids"):
        endpoints.fault(name, None)


def ask(endpoints: Endpoints, text: str = "so warm today", name: str = "weather") -> httpx.Response:
    return httpx.post(f"{endpoints.url}/models/{name}", json={"inputs": text}, timeout=30)


def body(number: int) -> dict[str, Any]:
    return {"inputs": f"text {number} " + "word " * (number % 7)}


def without_numbers(folder: Path) -> Path:
    """A model that loads and is ill: its first answer is not a number."""
    model = AutoModelForSequenceClassification.from_pretrained(save_model(folder))
    torch.nn.init.constant_(model.classifier.weight, float("nan"))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("num_cases", [300, pytest.param(3_000, marks=pytest.mark.chaos)])
def test_odd_requests_get_well_formed_answers_through_ray(endpoints: Endpoints, num_cases: int) -> None:
    """R13, whose many cases are in tests/serving/test_fuzz.py, without Ray."""
    pids = endpoints.settled("weather", 2) + endpoints.settled("writer", 1)
    before = ask(endpoints).json()
    seen = fuzz(endpoints.url, num_cases)
    print(f"{seen.total()} cases: {dict(sorted(seen.items()))}")
    assert seen.total() >= num_cases
    assert ask(endpoints).json() == before
    assert endpoints.replicas("weather") + endpoints.replicas("writer") == pids


@pytest.mark.parametrize(
    ("seconds", "every_s", "least"),
    [(15, 5, 300), pytest.param(130, 15, MANY, marks=pytest.mark.chaos)],
    ids=["short", "long"],
)
def test_replicas_that_are_killed_under_load_are_not_seen(
    endpoints: Endpoints, seconds: float, every_s: float, least: int
) -> None:
    back_s = []
    with load(f"{endpoints.url}/models/weather", body, RATE_PER_S) as seen:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            killed = endpoints.settled("weather", 2)[0]
            kill(killed)
            gone = endpoints.wait_until(lambda: killed not in endpoints.replicas("weather"), 10)  # noqa: B023
            back_s.append(gone + endpoints.wait_until(lambda: len(endpoints.replicas("weather")) == 2, BACK_S))
            time.sleep(max(0.0, every_s - back_s[-1]))
    print(f"{len(back_s)} kills, {seen.num} requests, {dict(seen.statuses)}, processes back after {back_s}")
    assert seen.failed == 0, seen.bad
    assert seen.num >= least


def test_a_stream_that_is_cut_ends_with_an_error_event(endpoints: Endpoints) -> None:
    planted = "zebra-in-the-snow"
    request = {
        "model": "writer", "prompt": planted, "max_tokens": 1900, "min_tokens": 1900, "stream": True,
    }  # fmt: skip
    lines = []
    with httpx.stream("POST", f"{endpoints.url}/v1/completions", json=request, timeout=60) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if not line:
                continue
            lines.append(line)
            if len(lines) == 3:
                kill(endpoints.replicas("writer")[0])
    assert '"error"' in lines[-1], lines[-1]
    assert '"server_error"' in lines[-1]
    assert "[DONE]" not in lines[-1]
    endpoints.wait_until(lambda: ask(endpoints, "once", "writer").status_code == 200, 60)
    assert not [log for log in endpoints.logs() if planted in log.read_text(errors="replace")]


def test_what_is_wrong_with_a_streamed_request_is_told_and_not_logged(endpoints: Endpoints) -> None:
    request = {"model": "writer", "prompt": "word " * 3000, "max_tokens": 4, "stream": True}
    response = httpx.post(f"{endpoints.url}/v1/completions", json=request, timeout=30)
    assert response.status_code == 422, response.text
    for log in endpoints.logs():
        assert "RowError" not in log.read_text(errors="replace"), log


def test_a_gateway_that_is_replaced_is_not_seen_and_ends_long_streams_with_an_error_event(endpoints: Endpoints) -> None:
    def replaced(drain_s: float) -> None:
        before = endpoints.replicas("gateway")
        endpoints.gateway["drain_s"] = drain_s
        endpoints.apply()
        endpoints.wait_until(lambda: not set(before) & set(endpoints.replicas("gateway")), 90)

    replaced(3)  # seconds; those of the one that goes count
    request = {
        "model": "writer", "prompt": "once upon", "max_tokens": 4000, "min_tokens": 4000, "n": 8, "stream": True,
    }  # fmt: skip
    lines: list[str] = []

    def read() -> None:
        with httpx.stream("POST", f"{endpoints.url}/v1/completions", json=request, timeout=120) as response:
            lines.extend(line for line in response.iter_lines() if line)

    with load(f"{endpoints.url}/models/weather", body, RATE_PER_S) as seen, ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        replaced(30)
        reader.result(60)
    assert "this gateway is being replaced" in lines[-1], lines[-1]
    assert seen.failed == 0, seen.bad


@pytest.mark.parametrize(
    ("replicas", "rounds"),
    [(2, 1), (1, 1), pytest.param(2, 5, marks=pytest.mark.chaos), pytest.param(1, 5, marks=pytest.mark.chaos)],
)
def test_versions_roll_under_load(endpoints: Endpoints, replicas: int, rounds: int) -> None:
    usual = endpoints.models["weather"]
    model = usual | {"replicas": replicas}
    url = f"{endpoints.url}/models/weather"
    tops = []
    with load(url, body, RATE_PER_S) as seen:
        for number in range(rounds):
            top_k = 1 + number % 3
            before = set(endpoints.replicas("weather"))
            endpoints.models["weather"] = model | {"task": {"name": "text-classification", "top_k": top_k}}
            endpoints.apply()
            endpoints.wait_until(lambda: not before & set(endpoints.replicas("weather")), 90)  # noqa: B023
            endpoints.wait_until(lambda: len(ask(endpoints).json()[0]) == top_k, 20)  # noqa: B023
            tops.append(top_k)
        while rounds > 1 and seen.num < MANY:
            time.sleep(0.5)
    print(f"{rounds} redeploys of {replicas}, {seen.num} requests, {dict(seen.statuses)}, /readyz {dict(seen.ready)}")
    assert seen.failed == 0, seen.bad
    assert set(seen.ready) == {200}
    endpoints.models["weather"] = usual
    endpoints.apply()
    endpoints.wait_until(lambda: len(ask(endpoints).json()[0]) == 3, 60)


def test_a_bad_version_leaves_the_old_one_answering(endpoints: Endpoints, tmp_path: Path) -> None:
    model = endpoints.models["weather"]
    with load(f"{endpoints.url}/models/weather", body, RATE_PER_S) as seen:
        endpoints.models["weather"] = model | {"model": {"path": str(tmp_path / "nothing")}}
        endpoints.apply()
        took_s = endpoints.wait_until(lambda: "failed  weather" in endpoints.text(), 60)
        assert "nothing" in endpoints.text().rpartition("failed  weather")[2]
        endpoints.models["weather"] = model | {"model": {"path": str(without_numbers(tmp_path / "nan"))}}
        endpoints.apply()
        endpoints.wait_until(lambda: endpoints.text().count("failed  weather") == 2, 60)
        endpoints.models["weather"] = model | {"resources": {"cpus": 1000}}
        endpoints.apply()
        endpoints.wait_until(lambda: "weather waits for a place: a replica takes" in endpoints.text(), 60)
        assert ask(endpoints).status_code == 200
        endpoints.models["weather"] = model
        endpoints.apply()
        endpoints.wait_until(lambda: len(endpoints.replicas("weather")) == 2, 60)
    print(f"failed to deploy after {took_s:.0f} s, {seen.num} requests, {dict(seen.statuses)}")
    assert seen.failed == 0, seen.bad
    assert set(seen.ready) == {200}


def test_prometheus_finds_what_the_docs_name(endpoints: Endpoints) -> None:
    assert ask(endpoints).status_code == 200
    request = {"model": "writer", "prompt": "once upon", "max_tokens": 40, "min_tokens": 40, "stream": True}
    assert httpx.post(f"{endpoints.url}/v1/completions", json=request, timeout=60).status_code == 200
    weather, writer, anybody = ('model="weather"', 'model="writer"', 'key="none"')
    wanted = {
        "requests_total": (weather, anybody, 'status="200"', "route="),
        "request_seconds_bucket": (weather, "route="),
        "overhead_seconds_bucket": (weather,),
        "first_token_seconds_bucket": (writer, anybody),
        "token_seconds_bucket": (writer, anybody),
        "tokens_total": (writer, anybody, 'kind="generated"'),
        "waiting_requests": (writer,),
        "model_generated_tokens_total": (writer,),
        "model_padding_share": (weather,),
        "model_batch_items": (weather,),
    }

    def missing() -> list[str]:
        lines = endpoints.metrics().splitlines()
        return [
            name
            for name, tags in wanted.items()
            if not any(line.startswith(f"ray_hfray_{name}{{") and all(tag in line for tag in tags) for line in lines)
        ]

    try:
        endpoints.wait_until(lambda: not missing(), 60)  # Ray passes them on every ten seconds
    except TimeoutError:
        pytest.fail(f"no {missing()} in\n{endpoints.metrics()}")


def test_a_file_with_a_mistake_changes_nothing(endpoints: Endpoints) -> None:
    good, pids = endpoints.path.read_text(), endpoints.replicas("weather")
    endpoints.path.write_text(good.replace("text-classification", "text-classificatoin"))
    assert endpoints.process is not None
    import signal

    endpoints.process.send_signal(signal.SIGHUP)
    endpoints.wait_until(lambda: "did you mean text-classification?" in endpoints.text(), 20)
    assert "the endpoints go on as they were" in endpoints.text()
    endpoints.path.write_text(good)
    assert endpoints.replicas("weather") == pids


def test_adapters_of_a_folder_answer_beside_their_base(endpoints: Endpoints) -> None:
    folder = Path(endpoints.models["writer"]["model"]["path"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("once upon", return_tensors="pt")
    wanted = {}
    for name in ("", *ADAPTERS):
        model = AutoModelForCausalLM.from_pretrained(folder)
        if name:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # PEFT's use of Transformers
                model = PeftModel.from_pretrained(model, endpoints.folder / "adapters" / name)
        ids = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        wanted[f"writer:{name}".rstrip(":")] = tokenizer.decode(ids, skip_special_tokens=True)
    assert len(set(wanted.values())) == len(wanted)

    def text(name: str) -> str:
        request = {"model": name, "prompt": "once upon", "max_tokens": 16, "temperature": 0}
        response = httpx.post(f"{endpoints.url}/v1/completions", json=request, timeout=60)
        assert response.status_code == 200, response.text
        return str(response.json()["choices"][0]["text"])

    with ThreadPoolExecutor(6) as pool:  # in one batch of the engine
        found = list(pool.map(text, [*wanted] * 2))
    assert found == [*wanted.values()] * 2
    assert {each["id"] for each in httpx.get(f"{endpoints.url}/v1/models").json()["data"]} >= {*wanted}
    request = {"model": "writer:nobody", "prompt": "once upon"}
    assert httpx.post(f"{endpoints.url}/v1/completions", json=request).status_code == 404


def test_models_come_and_go_and_the_others_keep_their_processes(endpoints: Endpoints, tmp_path: Path) -> None:
    names = ("gateway", "weather", "writer")
    endpoints.wait_until(lambda: len(endpoints.replicas("weather")) == 2, 60)
    pids = {name: endpoints.replicas(name) for name in names}
    endpoints.models["more"] = endpoints.models["weather"] | {
        "model": {"path": str(save_model(tmp_path / "more", labels=("a", "b")))}, "replicas": 1,
    }  # fmt: skip
    endpoints.apply()
    endpoints.wait_until(lambda: ask(endpoints, name="more").status_code == 200, 60)
    del endpoints.models["more"]
    endpoints.apply()
    endpoints.wait_until(lambda: ask(endpoints, name="more").status_code == 404, 30)
    assert {name: endpoints.replicas(name) for name in names} == pids


@pytest.mark.parametrize(
    ("name", "illness"),
    [("weather", "nan"), ("weather", "raise"), ("weather", "stick"), ("weather", "die"), ("writer", "nan")],
)
def test_health_tells_the_truth(endpoints: Endpoints, name: str, illness: str) -> None:
    model = endpoints.models[name]
    pids = endpoints.settled(name, model.get("replicas", 1))
    endpoints.wait_until(endpoints.ready, 60)
    endpoints.fault("model-pids", " ".join(map(str, pids)))
    endpoints.fault("model", illness)
    # A model that sleeps in a forward pass has one sooner where it is asked.
    with load(f"{endpoints.url}/models/{name}", body, 2) if illness == "stick" else nullcontext():
        unready_s = endpoints.wait_until(lambda: not endpoints.ready(), 40)
    gone_s = endpoints.wait_until(lambda: not set(pids) & set(endpoints.replicas(name)), 10)
    print(f"{name}, {illness}: not ready after {unready_s:.1f} s")
    endpoints.wait_until(endpoints.ready, 90)
    assert ask(endpoints, name=name).status_code == 200
    # Two periods of health_period_s; one that sleeps counts as stuck after its time for a step.
    assert unready_s < within(4.0) + (model["health_timeout_s"] if illness == "stick" else 0)
    assert gone_s < within(1.0)


def test_the_control_plane_may_die(endpoints: Endpoints) -> None:
    (controller,) = endpoints.processes("ray::ServeController")
    kill(controller)
    with load(f"{endpoints.url}/models/weather", body, RATE_PER_S) as seen:
        time.sleep(8)
    assert seen.failed == 0, seen.bad
    endpoints.wait_until(lambda: endpoints.processes("ray::ServeController") not in ([], [controller]), 60)


def open_to_all(pids: set[int]) -> set[str]:
    """Addresses that processes listen on for other machines too."""
    return {where for where in listening(pids) if where.startswith(("0.0.0.0:", "[::]:", "*:"))}


def pids_of_replicas(endpoints: Endpoints) -> set[int]:
    return {pid for name in ("gateway", "weather", "writer") for pid in endpoints.replicas(name)}


def test_another_machine_finds_nobody_who_does_not_ask_for_a_token(endpoints: Endpoints) -> None:
    num_replicas = 4
    endpoints.wait_until(lambda: len(pids_of_replicas(endpoints)) == num_replicas, 60)
    endpoints.wait_until(lambda: len(open_to_all(pids_of_replicas(endpoints))) == num_replicas, 60)
    ports = {int(where.rpartition(":")[2]) for where in listening({process.pid for process in endpoints.tree()})}
    with stranger() as other:
        found = other.finds(ports)
    assert set(found) == ports
    internal = {port for port, says in found.items() if says != {REFUSED}}
    assert len(internal) == num_replicas, "the port by which each talks to Ray Serve's other replicas"
    assert {frozenset(found[port]) for port in internal} == {frozenset({"UNAUTHENTICATED", "UNIMPLEMENTED"})}


def test_nothing_listens_to_other_machines(endpoints: Endpoints) -> None:
    all_of_them = open_to_all({process.pid for process in endpoints.tree()})
    assert all_of_them == open_to_all(pids_of_replicas(endpoints)), "but for the port by which they talk"
    assert f"127.0.0.1:{endpoints.port}" in listening(set(endpoints.replicas("gateway")))
