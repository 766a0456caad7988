"""From a checked request to a response: at once, or as server-sent events. Knows HTTP and lanes; not what bodies mean,
which the protocols give."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hfray.errors import RowError
from hfray.serving.bodies import Details, error_body, error_response, is_openai
from hfray.serving.errors import RequestError, as_request_error
from hfray.serving.front import Front, Toll, is_generating
from hfray.serving.lane import Lane
from hfray.serving.messages import Ask, Piece, Reply
from hfray.tasks.openai.responses import error_code

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

T = TypeVar("T")
EVENT_STREAM = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


async def answered(request: Request, front: Front, lane: Lane, ask: Ask, toll: Toll) -> Reply:
    """The reply, without rows that failed. Raises RequestError; of a row that failed the first."""
    timeout_s = lane.card.limits.timeout_s
    started = time.monotonic()
    reply = await _while_there(request, lane, lane.ask(ask, timeout_s))
    toll.pay(reply.num_tokens, reply.num_new_tokens)
    front.meters.computed(lane.card.name, time.monotonic() - started, reply.compute_s)
    for result in reply.results:
        if isinstance(result, RowError):
            raise as_request_error(result)
    return reply


async def streamed(
    request: Request,
    front: Front,
    lane: Lane,
    ask: Ask,
    toll: Toll,
    events: Callable[[AsyncIterator[list[Piece]]], AsyncIterator[bytes]],
) -> Response:
    """The events as a response that has begun. Raises RequestError for what fails before the first piece."""
    from starlette.responses import StreamingResponse

    started = time.monotonic()
    stream = lane.stream(ask, lane.card.limits.timeout_s)
    with toll.unless_begun():
        first = await _while_there(request, lane, _first(stream))
    front.meters.first_token(lane.card.name, toll.key_id, time.monotonic() - started)
    pieces = _metered(first, stream, front, lane, toll)
    body = _closed(request.url.path, events(pieces))
    return StreamingResponse(body, media_type=EVENT_STREAM, headers={"cache-control": "no-store"})


async def _first(stream: AsyncIterator[list[Piece]]) -> list[Piece]:
    return await anext(stream, [])


async def _metered(
    first: list[Piece], stream: AsyncIterator[list[Piece]], front: Front, lane: Lane, toll: Toll
) -> AsyncIterator[list[Piece]]:
    """The pieces, counted."""
    num_tokens = num_new_tokens = 0
    started = time.monotonic()
    try:
        async with aclosing(cast(Any, stream)):
            pieces = first
            while pieces:
                num_tokens = max(num_tokens, *(piece.num_tokens for piece in pieces))
                num_new_tokens += sum(piece.num_new_tokens for piece in pieces)
                yield pieces
                pieces = await anext(stream, [])
    finally:
        toll.pay(num_tokens, num_new_tokens)
        if num_new_tokens > 1:
            token_s = (time.monotonic() - started) / (num_new_tokens - 1)
            front.meters.per_token(lane.card.name, toll.key_id, token_s)


async def _closed(path: str, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events; where the stream fails on its way, the last one says so."""
    error = RequestError("the stream was broken off", status=500, type="ServerError")
    try:
        async with aclosing(cast(Any, events)):
            async for each in events:
                yield each
        return
    except RequestError as caught:
        error = caught
    except RowError as caught:
        error = as_request_error(caught)
    except Exception:
        pass  # the text of a stranger's exception is for nobody
    yield event(error_body(path, error.status, error.message, **_details(path, error)))


async def _while_there(request: Request, lane: Lane, work: Coroutine[Any, Any, T]) -> T:
    """The result, unless the client goes away before: what generates for nobody is cancelled."""
    if not is_generating(lane):
        return await work
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RequestError("the client went away", status=499, type="Cancelled")
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def event(data: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def refusal(request: Request, error: RequestError) -> Response:
    """The error in the words of the route's protocol."""
    return error_response(
        request.url.path,
        error.status,
        error.message,
        retry_after_s=error.retry_after_s,
        **_details(request.url.path, error),
    )


def _details(path: str, error: RequestError) -> Details:
    """The same in a stream as before it."""
    error_type = None if is_openai(path) else _HF_TYPES.get(error.type)
    return {"param": error.param, "code": error_code(error.type), "error_type": error_type}


_HF_TYPES: Mapping[str, str] = {"ChatTemplate": "template_error"}


def answer(body: Any) -> Response:
    """JSON; separators and escapes are left to the fewest bytes."""
    return answer_bytes(json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode())


def answer_bytes(body: bytes) -> Response:
    """JSON that is written already."""
    from starlette.responses import Response

    return Response(body, media_type="application/json")
