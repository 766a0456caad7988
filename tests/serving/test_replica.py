"""A model's process: what it answers is what the predictor answers, together or alone, at once or in pieces."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tokenizers import Regex, pre_tokenizers

from hfray.errors import EngineError, RowError
from hfray.serving.messages import Ask, Piece, Reply
from hfray.serving.replica import Replica
from tests.models.support import letter_tokenizer, save_decoder, save_model
from tests.serving.office import front_of, replica_of, served

TEXTS = ["a warm day", "b", "so very cold and windy up there", "hot"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    replica, _ = replica_of(save_model(tmp_path_factory.mktemp("classifier")), "text-classification")
    yield replica
    replica.close()


@pytest.fixture(scope="module")
def decoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def decoder(decoder_folder: Path) -> Iterator[Replica]:
    replica, card = replica_of(decoder_folder, {"name": "text-generation", "max_new_tokens": 12})
    assert card.streams
    assert card.has_chat
    yield replica
    replica.close()


def ask(text: str, **changes: Any) -> Ask:
    return Ask(({"text": text},), changes)


def prompt(text: str, use: Any = "default", **changes: Any) -> Ask:
    row: dict[str, Any] = {"prompt": text} if use == "default" else {"messages": [{"role": "user", "content": text}]}
    return Ask((row,), {"details": True, **changes}, use)


def test_requests_together_are_answered_as_alone(classifier: Replica) -> None:
    alone = [asyncio.run(classifier.predict([ask(text)]))[0] for text in TEXTS]
    together = asyncio.run(classifier.predict([ask(text) for text in TEXTS]))
    for one, other in zip(alone, together, strict=True):
        assert [each["label"] for each in one.results[0]] == [each["label"] for each in other.results[0]]
        scores = [[each["score"] for each in reply.results[0]] for reply in (one, other)]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    assert all(reply.num_tokens > 2 for reply in together)
    assert classifier.num_ongoing == 0


def test_each_request_has_its_own_options(classifier: Replica) -> None:
    one, two, bad = asyncio.run(classifier.predict([ask("warm", top_k=1), ask("warm", top_k=2), ask("warm", top_k=-5)]))
    assert (len(one.results[0]), len(two.results[0])) == (1, 2)
    error = bad.results[0]
    assert isinstance(error, RowError)
    assert error.type == "InvalidRequest"
    assert error.message.startswith("top_k: ")


def test_a_bad_row_is_an_error_beside_good_ones(classifier: Replica) -> None:
    good, bad = asyncio.run(classifier.predict([ask("warm"), Ask(({"text": None}, {"text": "hot"}))]))
    assert isinstance(good.results[0], list)
    assert isinstance(bad.results[0], RowError)
    assert isinstance(bad.results[1], list)


async def pieces_of(replica: Replica, request: Ask) -> list[Piece]:
    return [piece async for each in replica.stream(request) for piece in each]


@pytest.mark.parametrize("use", ["default", "chat"])
@pytest.mark.parametrize("changes", [{}, {"temperature": 1.0, "seed": 5}, {"stop": ["a", "b", "c"]}, {"logprobs": 2}])
def test_a_stream_is_the_answer_in_pieces(decoder: Replica, use: Any, changes: dict[str, Any]) -> None:
    request = prompt("hello there", use, **changes)
    (reply,) = asyncio.run(decoder.predict([request]))
    whole = reply.results[0]
    pieces = asyncio.run(pieces_of(decoder, request))
    assert "".join(piece.text for piece in pieces) == whole["text"]
    assert [piece.finish for piece in pieces if piece.finish] == [whole["finish"]]
    assert sum(piece.num_new_tokens for piece in pieces) == whole["completion_tokens"] == reply.num_new_tokens
    assert len({piece.num_tokens for piece in pieces}) == 1  # whoever stops reading has used them too
    assert pieces[-1].num_tokens == whole["prompt_tokens"] == reply.num_tokens
    scores = [score for piece in pieces for score in piece.logprobs]
    assert [score["token"] for score in scores] == [score["token"] for score in whole["logprobs"] or ()]


def test_several_texts_of_one_request_stream_at_once(decoder: Replica) -> None:
    request = prompt("hello", temperature=1.0, seed=3, num_return_sequences=3)
    (reply,) = asyncio.run(decoder.predict([request]))
    pieces = asyncio.run(pieces_of(decoder, request))
    texts = ["".join(piece.text for piece in pieces if piece.index == index) for index in range(3)]
    assert texts == [each["text"] for each in reply.results[0]]
    assert len(set(texts)) == 3


def test_many_streams_send_fewer_messages_each(decoder: Replica) -> None:
    async def count(num_streams: int) -> float:
        async def one(number: int) -> int:
            return len(
                [1 async for _ in decoder.stream(prompt(f"hello {number}", max_new_tokens=40, min_new_tokens=40))]
            )

        counts = await asyncio.gather(*(one(number) for number in range(num_streams)))
        return sum(counts) / num_streams

    assert asyncio.run(count(24)) < 0.7 * asyncio.run(count(1))


def test_a_stream_that_nobody_reads_leaves_the_engine(decoder: Replica) -> None:
    async def body() -> None:
        stream = decoder.stream(prompt("hello", max_new_tokens=200, min_new_tokens=200))
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        for _ in range(500):
            if not decoder.engine.scheduler.running and not decoder.engine.scheduler.waiting:  # type: ignore[attr-defined]
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the text is generated for nobody")

    asyncio.run(body())
    assert decoder.num_ongoing == 0


def test_a_request_that_gives_up_leaves_the_engine(decoder: Replica) -> None:
    async def body() -> None:
        task = asyncio.ensure_future(decoder.predict([prompt("hello", max_new_tokens=200, min_new_tokens=200)]))
        before = decoder.engine.stats.generated_tokens
        while decoder.engine.stats.generated_tokens == before:
            await asyncio.sleep(0.001)
        task.cancel()
        for _ in range(500):
            if not decoder.engine.scheduler.running:  # type: ignore[attr-defined]
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the text is generated for nobody")

    asyncio.run(body())


def test_a_chat_without_a_template_is_refused(tmp_path: Path) -> None:
    replica, card = replica_of(save_decoder(tmp_path, chat_template=""), "text-generation")
    (reply,) = asyncio.run(replica.predict([prompt("hello", "chat")]))
    replica.close()
    assert not card.has_chat
    assert isinstance(reply.results[0], RowError)
    assert reply.results[0].type == "NoChat"


def test_a_stream_of_a_bad_request_is_an_error(decoder: Replica) -> None:
    with pytest.raises(RowError, match="max_new_tokens"):
        asyncio.run(pieces_of(decoder, prompt("hello", max_new_tokens=100_000)))


def test_health_is_the_models(classifier: Replica, decoder: Replica) -> None:
    classifier.health.check()
    decoder.health.check()


def test_a_long_text_is_no_step_that_is_stuck(tmp_path: Path) -> None:
    replica, _ = replica_of(
        save_decoder(tmp_path), "text-generation", engine={"name": "batch"}, health_timeout_s=1.0, warm_up=False
    )
    model = replica.engine._loaded.model  # type: ignore[attr-defined]
    model.register_forward_pre_hook(lambda *arguments: time.sleep(0.05))

    async def body() -> Reply:
        task = asyncio.ensure_future(replica.predict([prompt("hello", max_new_tokens=30, min_new_tokens=30)]))
        await asyncio.sleep(1.3)
        assert not task.done()
        replica.health.check()
        (reply,) = await task
        return reply

    assert asyncio.run(body()).num_new_tokens == 30
    replica.close()


def test_a_dead_model_is_ill(tmp_path: Path) -> None:
    replica, _ = replica_of(save_model(tmp_path), "text-classification")
    replica.close()
    with pytest.raises(EngineError, match="has ended"):
        replica.health.check()


def test_a_model_that_answers_nan_is_ill(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    replica, _ = replica_of(save_model(tmp_path), "text-classification")
    parameter = next(replica.engine._loaded.model.parameters())  # type: ignore[attr-defined]
    parameter.data.fill_(float("nan"))
    (reply,) = asyncio.run(replica.predict([Ask(({"text": "warm"},), request_id="abc-1")]))
    assert isinstance(reply.results[0], RowError)
    assert reply.results[0].type == "NonFiniteOutput"
    assert caplog.messages == ["request abc-1: NonFiniteOutput"]
    with pytest.raises(EngineError, match="short input"):
        replica.health.check()
    replica.close()


def test_a_model_that_is_stuck_is_ill(tmp_path: Path) -> None:
    replica, _ = replica_of(save_model(tmp_path), "text-classification", health_timeout_s=1.0)
    free = threading.Event()
    model = replica.engine._loaded.model  # type: ignore[attr-defined]
    model.register_forward_pre_hook(lambda *arguments: free.wait(30) and None)

    async def body() -> None:
        task = asyncio.ensure_future(replica.predict([ask("warm")]))
        await asyncio.sleep(1.2)
        with pytest.raises(EngineError, match=r"worked at one step for|did not answer"):
            replica.health.check()
        free.set()
        await task

    asyncio.run(body())
    replica.close()


def test_a_model_with_much_to_do_is_well(tmp_path: Path) -> None:
    """Its short input waits behind all that came before."""
    replica, _ = replica_of(save_model(tmp_path), "text-classification", engine={"name": "batch", "max_batch_items": 1})
    model = replica.engine._loaded.model  # type: ignore[attr-defined]
    model.register_forward_pre_hook(lambda *arguments: time.sleep(0.05))

    async def body() -> list[Reply]:
        task = asyncio.ensure_future(replica.predict([ask(f"warm {number}") for number in range(60)]))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await asyncio.to_thread(replica.health.canary, 1.0)
        assert 0.9 < time.monotonic() - began < 2.5, "it gave up waiting, and was content"
        assert not task.done()
        return await task

    assert len(asyncio.run(body())) == 60
    replica.close()


@pytest.mark.parametrize("length", [24, 5000])
def test_a_tokenizer_whose_pattern_backtracks_refuses_the_text_and_lives(tmp_path: Path, length: int) -> None:
    folder = save_model(tmp_path)
    tokenizer = letter_tokenizer(max_length=8192)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    tokenizer.save_pretrained(folder)
    with served(front_of({"weather": replica_of(folder, "text-classification")})) as url:
        began = time.monotonic()
        bad = httpx.post(f"{url}/models/weather", json={"inputs": "a" * length + "!"}, timeout=30)
        assert bad.status_code == 422, bad.text
        assert time.monotonic() - began < 10
        assert "a" * 20 not in bad.text
        assert httpx.post(f"{url}/models/weather", json={"inputs": "warm"}, timeout=30).status_code == 200
