"""Texts in pieces while they are generated: several of one request at once, no more pieces a second than a replica can
send. Knows engines' streams and tasks' decoders; not HTTP, not protocols."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from hfray.engines.base import Engine, StreamingEngine, Token
from hfray.errors import RowError
from hfray.serving.messages import Piece
from hfray.tasks.answers import Delta
from hfray.types import Encoded, Item

PIECE_COST_S = 0.008
"""Seconds between two messages of a stream for each stream that is open: sending one costs both processes about a
millisecond, which many streams together would take from the model."""
MAX_PAUSE_S = 0.25
"""However many streams there are: a text that is read must not come in jerks."""


async def stream_pieces(
    task: Any, engine: Engine, encoded: Encoded, num_streams: Callable[[], int]
) -> AsyncIterator[list[Piece]]:
    """What is new of each of a row's texts, until all are complete. An engine without streams gives one piece
    a text.

    Raises ItemError or EngineError.
    """
    if not hasattr(engine, "stream"):
        yield await _whole(task, engine, encoded)
        return
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Piece | BaseException] = asyncio.Queue()
    readers = [
        loop.create_task(_read(task, cast(StreamingEngine, engine), item, encoded.carry, index, queue))
        for index, item in enumerate(encoded.items)
    ]
    try:
        left = len(readers)
        while left:
            pieces = [_present(await queue.get())]
            while not queue.empty():
                pieces.append(_present(queue.get_nowait()))
            left -= sum(piece.finish is not None for piece in pieces)
            shown = merge(pieces)
            if shown:
                sent_at = loop.time()
                yield shown
                pause_s = min(num_streams() * PIECE_COST_S, MAX_PAUSE_S) - (loop.time() - sent_at)
                if left and pause_s > 0:
                    await asyncio.sleep(pause_s)
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _read(
    task: Any, engine: StreamingEngine, item: Item, carry: Any, index: int, queue: asyncio.Queue[Piece | BaseException]
) -> None:
    """One text's tokens as pieces into the queue; an error goes there too, and ends the stream."""
    answer = task.answer_stream(carry)
    called = False
    tokens = engine.stream(item)
    try:
        async with contextlib.aclosing(cast(Any, tokens)):
            async for token in tokens:
                deltas = answer.push([token.id])
                if token.finish is not None:
                    deltas += answer.finish()
                called = called or any(delta.tool_call is not None for delta in deltas)
                finish = "tool_calls" if called and token.finish == "stop" else token.finish
                queue.put_nowait(_piece(task, carry, index, token, deltas, finish))
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        queue.put_nowait(error)


def _piece(task: Any, carry: Any, index: int, token: Token, deltas: list[Delta], finish: str | None) -> Piece:
    return Piece(
        index=index,
        text="".join(delta.content for delta in deltas),
        reasoning="".join(delta.reasoning for delta in deltas),
        tool_calls=tuple(
            (delta.tool_call.name, delta.tool_call.arguments) for delta in deltas if delta.tool_call is not None
        ),
        logprobs=_scores(task, carry, token),
        num_new_tokens=1,
        token_ids=(token.id,),
        finish=finish,
        num_tokens=carry.num_prompt_tokens,
    )


def _scores(task: Any, carry: Any, token: Token) -> tuple[dict[str, Any], ...]:
    scores = token.scores
    if scores is None or token.id in carry.eos_token_ids:
        return ()
    return (task.token_score(token.id, scores.logprob, zip(scores.top_ids, scores.top_logprobs, strict=True)),)


def merge(pieces: list[Piece]) -> list[Piece]:
    """One piece a text; those of a text that is held back (half a character) go along with the next."""
    merged: dict[int, Piece] = {}
    for piece in pieces:
        before = merged.get(piece.index)
        merged[piece.index] = piece if before is None else joined(before, piece)
    return list(merged.values())


def joined(one: Piece, other: Piece) -> Piece:
    """Two pieces of one text, one after the other."""
    return Piece(
        index=one.index,
        text=one.text + other.text,
        reasoning=one.reasoning + other.reasoning,
        tool_calls=one.tool_calls + other.tool_calls,
        logprobs=one.logprobs + other.logprobs,
        num_new_tokens=one.num_new_tokens + other.num_new_tokens,
        token_ids=one.token_ids + other.token_ids,
        finish=other.finish,
        num_tokens=other.num_tokens,
    )


async def _whole(task: Any, engine: Engine, encoded: Encoded) -> list[Piece]:
    outputs = await asyncio.wrap_future(engine.submit(encoded.items))
    pieces = []
    for index, output in enumerate(outputs):
        if isinstance(output, RowError):
            raise output
        result = task.decode([output], encoded.carry)
        first = result[0] if isinstance(result, list) else result
        pieces.append(
            Piece(
                index=index,
                text=first["text"],
                reasoning=first["reasoning"] or "",
                tool_calls=tuple((call["name"], call["arguments"]) for call in first["tool_calls"]),
                logprobs=tuple(first["logprobs"] or ()),
                num_new_tokens=first["completion_tokens"],
                token_ids=tuple(int(token) for token in output["tokens"]),
                finish=first["finish"],
                num_tokens=first["prompt_tokens"],
            )
        )
    return pieces


def _present(found: Piece | BaseException) -> Piece:
    if isinstance(found, BaseException):
        raise found
    return found
