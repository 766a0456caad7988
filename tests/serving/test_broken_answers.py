"""Answers that come too late or break off, over HTTP: the status or the last event, in each protocol's form (promises,
part C)."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from hfray.errors import RowError
from hfray.serving.lane import LostReplicaError
from hfray.serving.messages import Ask, Piece, Reply
from tests.models.support import save_model
from tests.serving.front import SECRET, until
from tests.serving.office import front_of, replica_of, served
from tests.serving.paced import ASKS, NUM_TOKENS, Writer, assert_error, limit, open_writer

pytestmark = pytest.mark.slow

TIMEOUT_S = 0.4
STREAM_TIMEOUT_S = 1.2  # on a busy machine too the first tokens are there before
STEP_S = 0.02  # all tokens of a request then take 4 s
TOO_LATE = ("timeout_error", "incomplete_generation")
OUR_FAULT = ("server_error", "generation")


@pytest.fixture(scope="module")
def module_writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writer]:
    with open_writer(tmp_path_factory.mktemp("writer")) as found:
        yield found


@pytest.fixture
def writer(module_writer: Writer) -> Writer:
    module_writer.rest()
    return module_writer


# -- the time limit


@pytest.mark.parametrize("path", ASKS)
def test_a_text_that_takes_too_long_is_a_408(writer: Writer, path: str) -> None:
    writer.limit(TIMEOUT_S)
    writer.pace.step_s = STEP_S
    begun = time.monotonic()
    reply = httpx.post(writer.url + path, json=ASKS[path], timeout=30)
    assert TIMEOUT_S <= time.monotonic() - begun < 3
    assert reply.status_code == 408
    assert f"{TIMEOUT_S} s" in assert_error(path, reply.json(), TOO_LATE)
    assert "retry-after" not in reply.headers
    until(lambda: not writer.running, "the text is generated for nobody")
    assert writer.generated < NUM_TOKENS / 2


@pytest.mark.parametrize("path", ASKS)
def test_a_stream_that_takes_too_long_ends_with_an_error(writer: Writer, path: str) -> None:
    writer.limit(STREAM_TIMEOUT_S)
    writer.pace.step_s = STEP_S
    found = writer.events(path, ASKS[path])
    assert len(found) > 2, "it had begun"
    assert "[DONE]" not in found
    assert all("error" not in each for each in found[:-1])
    assert f"{STREAM_TIMEOUT_S} s" in assert_error(path, found[-1], TOO_LATE)
    assert 0 < writer.generated < NUM_TOKENS / 2


@pytest.mark.parametrize("path", ASKS)
def test_a_stream_that_has_not_begun_in_time_is_a_408(writer: Writer, path: str) -> None:
    writer.limit(TIMEOUT_S)
    writer.pace.go.clear()
    reply = httpx.post(writer.url + path, json={**ASKS[path], "stream": True}, timeout=30)
    assert reply.status_code == 408
    assert reply.headers["content-type"] == "application/json"
    assert_error(path, reply.json(), TOO_LATE)


def test_a_model_that_only_reads_has_the_same_limit(tmp_path: Path) -> None:
    replica, card = replica_of(save_model(tmp_path, "AutoModel"), "feature-extraction")
    front = front_of({"embedder": (replica, card)})
    go = threading.Event()

    def held(*arguments: Any) -> None:
        go.wait(30)

    replica.engine._loaded.model.register_forward_pre_hook(held)  # type: ignore[attr-defined]
    asks = {"/models/embedder": {"inputs": "a"}, "/v1/embeddings": {"model": "embedder", "input": "a"}}
    with served(front) as url:
        limit(front.directory.lanes["embedder"], TIMEOUT_S)
        for route, body in asks.items():
            reply = httpx.post(url + route, json=body, timeout=30)
            assert reply.status_code == 408
            assert_error(route, reply.json(), TOO_LATE)
        go.set()
        limit(front.directory.lanes["embedder"], 60)
        for route, body in asks.items():
            assert httpx.post(url + route, json=body, timeout=30).status_code == 200
    replica.close()


# -- errors on the way


@pytest.mark.parametrize("path", ASKS)
def test_a_model_that_fails_in_a_stream(writer: Writer, path: str) -> None:
    writer.pace.steps_left, writer.pace.error = 20, ValueError(SECRET)
    found = writer.events(path, ASKS[path])
    assert len(found) > 1, "it had begun"
    assert "[DONE]" not in found
    assert all("error" not in each for each in found[:-1])
    assert assert_error(path, found[-1], OUR_FAULT) == "the model failed on this input"
    writer.rest()
    assert writer.events(path, ASKS[path])[-1] == "[DONE]", "the engine goes on"


@pytest.mark.parametrize("path", ASKS)
def test_a_model_that_fails_before_a_stream_has_begun(writer: Writer, path: str) -> None:
    writer.pace.steps_left, writer.pace.error = 0, ValueError(SECRET)
    reply = httpx.post(writer.url + path, json={**ASKS[path], "stream": True}, timeout=30)
    assert reply.status_code == 500
    assert reply.headers["content-type"] == "application/json"
    assert assert_error(path, reply.json(), OUR_FAULT) == "the model failed on this input"


@pytest.mark.parametrize(
    ("error", "types", "says"),
    [
        (LostReplicaError(SECRET), OUR_FAULT, "lost"),
        (ValueError(SECRET), OUR_FAULT, "broken off"),
        (RowError(SECRET, type="ModelFailure"), OUR_FAULT, "the model failed"),
        (RowError("its caller gave up", type="Cancelled"), ("overloaded_error", "overloaded"), "gave up"),
        (RowError(SECRET, type="TokenizerFailure"), ("invalid_request_error", "validation"), "the tokenizer failed"),
    ],
    ids=["a lost replica", "a stranger's", "the model's", "one given up", "the tokenizer's"],
)
@pytest.mark.parametrize("path", ASKS)
def test_what_comes_from_a_replica_in_a_stream(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, path: str, error: Exception, types: Any, says: str
) -> None:
    calls: Any = writer.front.directory.lanes["writer"]._calls
    real = calls.stream

    async def broken(ask: Ask, load: int) -> AsyncIterator[list[Piece]]:
        async for pieces in real(ask, load):
            yield pieces
            raise error

    monkeypatch.setattr(calls, "stream", broken)
    found = writer.events(path, ASKS[path])
    assert len(found) > 1, "it had begun"
    assert all(each != "[DONE]" and "error" not in each for each in found[:-1])
    message = assert_error(path, found[-1], types)
    assert says in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "error",
    [
        RowError(SECRET, type="ModelFailure"),
        RowError("the prompt has too many tokens", type="PromptTooLong"),
        RowError("the chat template failed", type="ChatTemplate"),
    ],
    ids=lambda error: str(error.type),
)
@pytest.mark.parametrize("path", ASKS)
def test_the_body_is_the_same_in_a_stream(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, path: str, error: RowError
) -> None:
    calls: Any = writer.front.directory.lanes["writer"]._calls

    async def predict(asks: Sequence[Ask], load: int) -> list[Reply]:
        return [Reply((error,)) for _ in asks]

    async def stream(ask: Ask, load: int) -> AsyncIterator[list[Piece]]:
        yield [Piece(0, "a", num_new_tokens=1, token_ids=(5,))]
        raise error

    monkeypatch.setattr(calls, "predict", predict)
    monkeypatch.setattr(calls, "stream", stream)
    *_, last = writer.events(path, ASKS[path])
    assert last == httpx.post(writer.url + path, json=ASKS[path]).json()
