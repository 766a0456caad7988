"""What a replica says of itself when its model or its tokenizer falls ill, and what becomes of the requests it has."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from copy import copy
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from tokenizers import Regex, pre_tokenizers

from hfray.errors import EngineError, RowError
from hfray.serving.coder import MAX_LOST_THREADS, TOO_SLOW
from hfray.serving.health import NUM_BAD
from hfray.serving.messages import Ask, Card, Reply
from hfray.serving.replica import Replica
from hfray.tasks.text import TextEncoder
from tests.models.support import letter_tokenizer, save_decoder, save_model
from tests.promises.rig import within
from tests.serving.office import front_of, replica_of, served

STUCK_S = 1.5


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("classifier"))


def writer_of(folder: Path) -> tuple[Replica, Card]:
    """Of the continuous engine."""
    return replica_of(folder, {"name": "text-generation", "max_new_tokens": 8}, health_timeout_s=STUCK_S)


@pytest.fixture(scope="module")
def shared_writer(decoder: Path) -> Iterator[tuple[Replica, Card]]:
    found = writer_of(decoder)
    yield found
    found[0].close()


@pytest.fixture
def writer(shared_writer: tuple[Replica, Card], monkeypatch: pytest.MonkeyPatch) -> tuple[Replica, Card]:
    """One that is well, and will be after the test."""
    replica, _ = shared_writer
    replica.health.check()
    monkeypatch.setattr(replica.engine, "_runner", copy(replica.engine._runner))  # type: ignore[attr-defined]
    return shared_writer


def spoil(replica: Replica, spoilt: Callable[[Any, Any], Any]) -> None:
    """spoilt: is given each step and its scores, and gives the scores."""
    runner = replica.engine._runner  # type: ignore[attr-defined]
    scores = runner._scores
    runner._scores = lambda step: spoilt(step, scores(step))


def prompt(text: str, **changes: Any) -> Ask:
    return Ask(({"prompt": text},), changes)


async def read(replica: Replica, request: Ask) -> None:
    async with aclosing(cast(Any, replica.stream(request))) as pieces:
        async for _ in pieces:
            pass


def told(replica: Replica) -> tuple[str, float]:
    """What the replica's health complains of, and after how many seconds."""
    started = time.monotonic()
    while time.monotonic() - started < 30:
        try:
            replica.health.check()
        except EngineError as error:
            return str(error), time.monotonic() - started
        time.sleep(0.05)
    raise AssertionError("it is well")


def kind(answer: Any) -> str:
    """Of what went wrong; of a text its own."""
    (answer,) = answer[0].results if isinstance(answer, list) else (answer,)
    return str(getattr(answer, "type", type(answer).__name__))


@pytest.mark.parametrize(
    ("illness", "complaint", "answer"),
    [
        ("nan", "failed at a short input: the model's scores are not finite numbers", "NonFiniteOutput"),
        ("raise", "failed at a short input", "ModelFailure"),
        ("stick", "worked at one step", None),
    ],
)
def test_a_model_that_generates_falls_ill(
    writer: tuple[Replica, Card], illness: str, complaint: str, answer: str | None
) -> None:
    free = threading.Event()

    def spoilt(step: Any, scores: Any) -> Any:
        if illness == "raise":
            raise RuntimeError("the model is ill today")
        if illness == "stick":
            free.wait(30)
        return scores * float("nan") if illness == "nan" else scores

    spoil(writer[0], spoilt)
    kinds, said, took_s = asyncio.run(ill(writer[0], free))
    print(f"{illness}: {said!r} after {took_s:.2f} s, answers {kinds}")
    assert complaint in said
    assert took_s < within(1.0) + (STUCK_S if illness == "stick" else 0)
    assert answer is None or kinds == [answer] * 2, "no text of such a model is an answer"


def test_a_model_that_generates_dies(decoder: Path) -> None:
    def spoilt(step: Any, scores: Any) -> Any:
        raise SystemExit("the thread of the model ends")

    replica, _ = writer_of(decoder)
    spoil(replica, spoilt)
    kinds, said, took_s = asyncio.run(ill(replica, threading.Event()))
    assert said == "the model's thread has ended"
    assert took_s < within(1.0)
    assert kinds == ["EngineError"] * 2
    replica.close()


async def ill(replica: Replica, free: threading.Event) -> tuple[list[str], str, float]:
    """What becomes of a request and of a stream, what the replica's health complains of, after how many seconds."""
    tasks = [
        asyncio.ensure_future(replica.predict([prompt("hello there")])),
        asyncio.ensure_future(read(replica, prompt("hello again"))),
    ]
    await asyncio.sleep(0.3)  # they are in the engine
    said, took_s = await asyncio.to_thread(told, replica)
    free.set()
    return [kind(each) for each in await asyncio.gather(*tasks, return_exceptions=True)], said, took_s


def test_streams_of_a_busy_model_count(writer: tuple[Replica, Card]) -> None:
    """While one text goes on and on, only the answers tell that others are none."""
    replica, _ = writer

    def spoilt(step: Any, scores: Any) -> Any:
        time.sleep(0.02)
        for row, sequence in enumerate(step.drawing):
            if len(sequence.tokens) < 60:
                scores[row] = float("nan")
        return scores

    async def body() -> str:
        long = asyncio.ensure_future(read(replica, prompt("word " * 20, max_new_tokens=150, min_new_tokens=150)))
        for number in range(NUM_BAD):
            with pytest.raises(RowError, match="not finite"):
                await read(replica, prompt("hello", seed=number))
            with pytest.raises(RowError, match="max_new_tokens"):  # a request's own mistake says nothing of the model
                await read(replica, prompt("hello", max_new_tokens=100_000))
        said, _ = await asyncio.to_thread(told, replica)
        assert not long.done()
        long.cancel()
        return said

    spoil(replica, spoilt)
    assert "not finite" in asyncio.run(body())


@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_is_logged_under_the_id_that_its_client_has(
    writer: tuple[Replica, Card], stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(writer[0], lambda step, scores: scores * float("nan"))
    request = {"model": "writer", "prompt": "once", "stream": stream}
    trace = "ab" * 16
    marks = {"x-request-id": "abc-1", "traceparent": f"00-{trace}-{'cd' * 8}-01"}
    with served(front_of({"writer": writer})) as url:
        made = httpx.post(f"{url}/v1/completions", json=request, timeout=30)
        given = httpx.post(f"{url}/v1/completions", json=request, headers=marks, timeout=30)
    assert (made.status_code, given.status_code) == (500, 500)
    assert given.headers["x-request-id"] == "abc-1"
    faults = [record.getMessage() for record in caplog.records if record.name == "hfray.serving.replica"]
    assert faults == [
        f"request {made.headers['x-request-id']}: NonFiniteOutput",
        f"request abc-1 of trace {trace}: NonFiniteOutput",
    ]


class Slow:
    """A tokenizer that never comes back from some texts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *marks: str) -> None:
        self.free = threading.Event()
        self.marks = marks
        real = TextEncoder.encode

        def encode(encoder: TextEncoder, texts: Any, *more: Any, **named: Any) -> Any:
            if any(mark in text for text in texts for mark in self.marks):
                self.free.wait(60)
            return real(encoder, texts, *more, **named)

        monkeypatch.setattr(TextEncoder, "encode", encode)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    each = Slow(monkeypatch, "zzz")
    yield each
    each.free.set()


def test_a_text_that_the_tokenizer_does_not_come_back_from(
    classifier: Path, slow: Slow, caplog: pytest.LogCaptureFixture
) -> None:
    replica, card = replica_of(classifier, "text-classification", health_timeout_s=STUCK_S)
    with served(front_of({"weather": (replica, card)})) as url, ThreadPoolExecutor(12) as pool:

        def post(text: str) -> tuple[httpx.Response, float]:
            began = time.monotonic()
            response = httpx.post(f"{url}/models/weather", json={"inputs": text}, timeout=30)
            return response, time.monotonic() - began

        found = list(pool.map(post, [*(f"warm {number}" for number in range(5)), "a zzz", "hot", "cold"]))
        statuses = [response.status_code for response, _ in found]
        print(f"{statuses} after {[round(took_s, 2) for _, took_s in found]} s of {STUCK_S} s")
        assert statuses == [200] * 5 + [422] + [200] * 2
        refused, took_s = found[5]
        assert took_s < 2 * STUCK_S
        assert "inputs took longer than 0.5 s" in refused.json()["error"]
        assert f"request {refused.headers['x-request-id']}: EncodingTimeout" in caplog.messages
        replica.health.check()
        for _ in range(MAX_LOST_THREADS):
            response, _ = post("one zzz more")
            if response.status_code != 422:
                break
        with pytest.raises(EngineError, match=f"{MAX_LOST_THREADS} threads have not come back"):
            replica.health.check()
    replica.close()


def test_threads_that_come_back_are_no_illness(classifier: Path, slow: Slow) -> None:
    replica, _ = replica_of(classifier, "text-classification", health_timeout_s=STUCK_S)
    for number in range(MAX_LOST_THREADS + 1):
        slow.free.clear()
        (reply,) = asyncio.run(replica.predict([Ask(({"text": f"zzz {number}"},))]))
        assert isinstance(reply.results[0], RowError)
        assert reply.results[0].type == TOO_SLOW
        slow.free.set()
        deadline = time.monotonic() + 10
        while replica.health.coder._lost and time.monotonic() < deadline:
            time.sleep(0.01)
    replica.health.check()
    replica.close()


def test_a_tokenizer_that_is_stuck_for_all_is_ill(classifier: Path, slow: Slow) -> None:
    """As one is that holds a lock: whoever waits behind it goes to another replica, and is refused nothing."""
    replica, _ = replica_of(classifier, "text-classification", health_timeout_s=STUCK_S)
    slow.marks = ("",)

    async def body() -> list[Reply | BaseException]:
        first = asyncio.ensure_future(replica.predict([Ask(({"text": "warm"},))]))
        await asyncio.sleep(0.1)
        others = [replica.predict([Ask(({"text": f"hot {number}"},))]) for number in range(3)]
        return await asyncio.gather(first, *others, return_exceptions=True)  # type: ignore[return-value]

    (first, *others) = asyncio.run(body())
    assert first[0].results[0].type == TOO_SLOW  # type: ignore[index]
    assert [type(each) for each in others] == [EngineError] * 3
    with pytest.raises(EngineError, match="the tokenizer is stuck: 2 threads"):
        replica.health.check()
    replica.close()


def test_a_real_tokenizer_that_is_slow_lets_others_in(tmp_path: Path) -> None:
    """Its pattern takes a time that grows with the square of a text's length, without an error."""
    folder = save_model(tmp_path)
    tokenizer = letter_tokenizer(max_length=8192)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("a*b"), "isolated")
    tokenizer.save_pretrained(folder)
    replica, card = replica_of(folder, "text-classification", health_timeout_s=STUCK_S)
    with served(front_of({"weather": (replica, card)})) as url, ThreadPoolExecutor(2) as pool:
        slow = pool.submit(httpx.post, f"{url}/models/weather", json={"inputs": "a" * 40_000 + " b"}, timeout=30)
        time.sleep(0.2)
        began = time.monotonic()
        other = httpx.post(f"{url}/models/weather", json={"inputs": "warm"}, timeout=30)
        took_s = time.monotonic() - began
        assert slow.result().status_code == 422
        assert other.status_code == 200
        print(f"the other was answered after {took_s:.2f} s")
        replica.health.check()
    replica.close()
