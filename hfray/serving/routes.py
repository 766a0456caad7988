"""The routes of a gateway. Knows which path is whose, and how each protocol's request is taken through a lane; who may
ask is the guard's."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from hfray.errors import RowError
from hfray.serving import openai
from hfray.serving.access_log import trace_id
from hfray.serving.answering import DONE, answer, answer_bytes, answered, event, refusal, streamed
from hfray.serving.errors import RequestError, as_request_error
from hfray.serving.front import Front, is_generating, with_seed
from hfray.serving.guard import Guard
from hfray.serving.held import HeldBytes
from hfray.serving.hf.call import BODIES_WITH_IMAGES, Call, Limits
from hfray.serving.hf.events import EventStream
from hfray.serving.hf.protocol import is_image, parse, parse_image, render
from hfray.serving.json_body import parse_json, read_json
from hfray.serving.keys import KeyRing
from hfray.serving.lane import Lane
from hfray.serving.messages import Ask, Marks, Piece
from hfray.serving.openai_bodies import model_field
from hfray.serving.openapi import Documents
from hfray.tasks import TASKS
from hfray.tasks.generation_options import most_new_tokens

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Scope

PAGE_BYTES = 64 << 10
Handler = Callable[[Front, "Request"], Coroutine[Any, Any, "Response"]]


def make_app(front: Front, ring: KeyRing | None = None) -> ASGIApp:
    """The ASGI application of a gateway, behind its guard. Raises SpecError for a playground without its library."""
    from fastapi import FastAPI

    app = FastAPI(title="hfray", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    for path, handler, method in (
        ("/healthz", _healthz, "GET"),
        ("/-/healthz", _healthz, "GET"),
        ("/readyz", _readyz, "GET"),
        ("/openapi.json", _openapi(Documents()), "GET"),
        ("/v1/models", _models, "GET"),
        ("/v1/models/{name:path}", _model, "GET"),
        ("/v1/{route:path}", _openai, "POST"),
        ("/models/{name}/v1/{route:path}", _openai, "POST"),
        ("/models/{name}", _hf, "POST"),
        ("/models/{name}", _card, "GET"),
    ):
        app.add_route(path, _bound(front, handler), methods=[method])
    limit = partial(_max_body_bytes, front)
    doors: dict[str, ASGIApp] = {}
    if front.spec.playground:
        from hfray.serving.playground.app import make_playground
        from hfray.serving.playground.door import PREFIX

        doors[PREFIX] = make_playground(front, app, limit, ring)
    return Guard(app, ring, max_body_bytes=limit, held=HeldBytes(front.spec.max_held_bytes), doors=doors)


def _bound(front: Front, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        started = time.monotonic()
        status = 500
        try:
            response = await handler(front, request)
            status = response.status_code
        except RequestError as error:
            status = error.status
            response = refusal(request, error)
        except RowError as error:
            found = as_request_error(error)
            status = found.status
            response = refusal(request, found)
        finally:
            state = request.scope["state"]
            if "model" in state:
                key = state["key"]
                route = handler.__name__.strip("_")
                front.meters.request(
                    state["model"], None if key is None else key.id, route, status, time.monotonic() - started
                )
        return response

    return respond


def _max_body_bytes(front: Front, scope: Scope) -> int:
    """The limit of the model that the path names; on OpenAI's routes the largest of all models, whose own counts once
    the body has named it."""
    path = str(scope["path"])
    if path.startswith("/playground/"):
        return _playground_bytes(front, path)
    name = path.removeprefix("/models/").partition("/")[0].partition(":")[0] if path.startswith("/models/") else None
    lanes = front.directory.lanes
    chosen = [lanes[name]] if name in lanes else [] if name is not None else list(lanes.values())
    return max((_body_bytes(lane, "/v1/" in path) for lane in chosen), default=1 << 20)


def _playground_bytes(front: Front, path: str) -> int:
    """Any model may be meant by what the page sends, which has the request in it, and little else."""
    largest = max((_body_bytes(lane, False) for lane in front.directory.lanes.values()), default=0)
    return (largest if path.endswith("/queue/join") else 0) + PAGE_BYTES


def _body_bytes(lane: Lane, openai_route: bool) -> int:
    images = TASKS[lane.card.task].needs_images and not openai_route
    return lane.card.limits.max_body_bytes * (BODIES_WITH_IMAGES if images else 1)


# -- health


async def _healthz(front: Front, request: Request) -> Response:
    return answer({"status": "ok"})


async def _readyz(front: Front, request: Request) -> Response:
    if front.ready:
        return answer({"status": "ready"})
    why = "this gateway is being replaced" if front.draining else "not every model has a replica that answers"
    raise RequestError(why, status=503, retry_after_s=1)


def _openapi(documents: Documents) -> Handler:
    async def openapi(front: Front, request: Request) -> Response:
        cards = {name: lane.card for name, lane in front.lanes(request).items()}
        return answer_bytes(documents.get(cards, secured=request.scope["state"]["key"] is not None))

    return openapi


# -- OpenAI


async def _models(front: Front, request: Request) -> Response:
    entries = [
        openai.model_object(name if adapter is None else f"{name}:{adapter}", lane.card.created)
        for name, lane in sorted(front.lanes(request).items())
        for adapter in (None, *lane.card.adapters)
    ]
    return answer({"object": "list", "data": entries})


async def _model(front: Front, request: Request) -> Response:
    name = request.path_params["name"]
    lane, _ = front.lane(request, name)
    return answer(openai.model_object(name, lane.card.created))


async def _openai(front: Front, request: Request) -> Response:
    route = request.path_params["route"]
    if route not in openai.ROUTES:
        raise RequestError(f"there is no such route; there are {', '.join(openai.ROUTES)}", status=404)
    body = await read_json(request)
    named = model_field(body)
    lane, adapter = front.lane(request, request.path_params.get("name", named))
    most = _body_bytes(lane, True)
    if len(await request.body()) > most:
        raise RequestError(f"the body is larger than {most:,} bytes; send fewer or smaller inputs", status=413)
    asked = openai.asked(route, body, lane.card, adapter, _marks(request))
    toll = await front.admit(request, lane, asked.ask.rows, asked.num_new_tokens)
    if asked.streams:
        return await streamed(request, front, lane, asked.ask, toll, partial(openai.events, asked))
    with toll.settled():
        reply = await answered(request, front, lane, asked.ask, toll)
    return answer(openai.response(asked, reply))


# -- Hugging Face


async def _card(front: Front, request: Request) -> Response:
    lane, _ = front.lane(request, request.path_params["name"])
    card = lane.card
    return answer(
        {
            "id": request.path_params["name"],
            "pipeline_tag": card.task,
            "adapters": list(card.adapters),
            "labels": list(card.labels),
            "max_length": card.max_length,
        }
    )


async def _hf(front: Front, request: Request) -> Response:
    lane, adapter = front.lane(request, request.path_params["name"])
    card, limits = lane.card, Limits.of(lane.card.limits)
    own = card.options
    body = await request.body()
    if is_image(card.task, request.headers.get("content-type", ""), body):
        call = parse_image(card.task, body, limits)
    else:
        call = parse(card.task, parse_json(body), limits, own)
    if call.adapter is not None:
        if call.adapter not in card.adapters:
            raise RequestError("the model has no such adapter", status=404, param="parameters.adapter_id")
        adapter = call.adapter
    rows = call.rows if adapter is None else tuple({**row, "adapter": adapter} for row in call.rows)
    changes = with_seed(call.changes, own)
    ask = Ask(rows, changes, "default", **_marks(request))
    num_new_tokens = most_new_tokens({**own, **changes}, len(rows)) if is_generating(lane) else 0
    toll = await front.admit(request, lane, rows, num_new_tokens)
    if call.stream:
        return await streamed(request, front, lane, ask, toll, partial(_hf_events, call))
    with toll.settled():
        reply = await answered(request, front, lane, ask, toll)
    return answer(render(call, reply.results, own))


async def _hf_events(call: Call, pieces: AsyncIterator[list[Piece]]) -> AsyncIterator[bytes]:
    """A stream of one text; it ends as OpenAI's do, which clients of both know."""
    stream = EventStream(call)
    async for each in pieces:
        for piece in each:
            for value in stream.push(piece):
                yield event(value)
    yield DONE


def _marks(request: Request) -> Marks:
    """What a replica is told of who asks: the ids that its log names, and what keeps one key's texts out of another
    key's cache."""
    state = request.scope["state"]
    key = state["key"]
    return {
        "request_id": state["request_id"],
        "trace_id": trace_id(state["traceparent"]) or "",
        "salt": "" if key is None else str(key.id),
    }
