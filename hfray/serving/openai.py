"""OpenAI's routes: a body to a request, a reply to a body, a stream to server-sent events. Knows the API; not
HTTP's side of it, not replicas."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hfray.errors import RowError
from hfray.serving.answering import DONE, event
from hfray.serving.errors import as_request_error
from hfray.serving.messages import Ask, Card, Marks, Piece, Reply, Use
from hfray.serving.openai_bodies import RerankBody, ServedChat, ServedCompletion, ServedEmbedding, changes_of, read_body
from hfray.tasks.generation_options import most_new_tokens
from hfray.tasks.openai.requests import EmbeddingBody, GeneratingBody
from hfray.tasks.openai.responses import chat_completion, completion, embeddings, identifier, score_entry

ROUTES: dict[str, type[Any]] = {
    "chat/completions": ServedChat,
    "completions": ServedCompletion,
    "embeddings": ServedEmbedding,
    "rerank": RerankBody,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a route, checked."""

    body: Any
    ask: Ask
    copies: int = 1
    """How often each text is given: `n` of a request that does not sample."""
    own: Mapping[str, Any] = field(default_factory=dict)
    """The endpoint's options."""
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def num_new_tokens(self) -> int:
        """The most that may be generated."""
        if not isinstance(self.body, GeneratingBody):
            return 0
        return most_new_tokens({**self.own, **self.ask.changes}, len(self.ask.rows))

    @property
    def streams(self) -> bool:
        return bool(getattr(self.body, "stream", False))


def asked(route: str, body: Any, card: Card, adapter: str | None, marks: Marks) -> Asked:
    """marks: the request's ids and salt, for its Ask. Raises RequestError."""
    found = read_body(body, ROUTES[route], card)
    rows = found.rows()
    if adapter is not None:
        rows = [{**row, "adapter": adapter} for row in rows]
    changes, copies = ({}, 1) if isinstance(found, EmbeddingBody | RerankBody) else changes_of(found, card)
    use: Use = "chat" if isinstance(found, ServedChat) else "default"
    return Asked(found, Ask(tuple(rows), changes, use, **marks), copies, card.options)


def response(asked: Asked, reply: Reply) -> dict[str, Any]:
    """The body of the answer; no row of the reply failed. Raises RequestError for dimensions that it does not have."""
    results = reply.results
    body, request_id = asked.body, asked.ask.request_id
    if isinstance(body, EmbeddingBody):
        try:
            return embeddings(results, body, reply.num_tokens)
        except RowError as error:
            raise as_request_error(error) from None
    if isinstance(body, RerankBody):
        return _ranking(results, asked, reply)
    choices = [(each if isinstance(each, list) else [each]) * asked.copies for each in results]
    make = chat_completion if isinstance(body, ServedChat) else completion
    return {"id": _identity(asked), "created": asked.created, **make(choices, body, request_id)}


async def events(asked: Asked, streams: AsyncIterator[list[Piece]]) -> AsyncIterator[bytes]:
    """The events of a stream, the last of them `[DONE]`. A stream that fails on its way ends with an error event."""
    chat = isinstance(asked.body, ServedChat)
    options = asked.body.stream_options
    usage = options is not None and options.include_usage
    begun: set[int] = set()
    calls: dict[int, int] = {}
    num_tokens = num_new_tokens = 0
    async for pieces in streams:
        for piece in pieces:
            num_tokens = max(num_tokens, piece.num_tokens)
            num_new_tokens += piece.num_new_tokens * asked.copies
            for index in range(piece.index * asked.copies, (piece.index + 1) * asked.copies):
                choice = _chat_choice(piece, index, begun, calls, asked) if chat else _text_choice(piece, index)
                if choice is not None:
                    yield event(_chunk(asked, [choice], usage))
    if usage:
        counts = {"prompt_tokens": num_tokens, "completion_tokens": num_new_tokens}
        total = {**counts, "total_tokens": num_tokens + num_new_tokens}
        yield event({**_chunk(asked, [], False), "usage": total})
    yield DONE


def model_object(name: str, created: int) -> dict[str, Any]:
    """An entry of /v1/models."""
    return {"id": name, "object": "model", "created": created, "owned_by": "hfray"}


def _chunk(asked: Asked, choices: Sequence[dict[str, Any]], usage: bool) -> dict[str, Any]:
    kind = "chat.completion.chunk" if isinstance(asked.body, ServedChat) else "text_completion"
    chunk = {
        "id": _identity(asked), "object": kind, "created": asked.created, "model": asked.body.model,
        "choices": list(choices),
    }  # fmt: skip
    return {**chunk, "usage": None} if usage else chunk


def _chat_choice(
    piece: Piece, index: int, begun: set[int], calls: dict[int, int], asked: Asked
) -> dict[str, Any] | None:
    delta: dict[str, Any] = {}
    if index not in begun:
        begun.add(index)
        delta = {"role": "assistant", "content": ""}
    if piece.text:
        delta["content"] = piece.text
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if piece.tool_calls:
        first = calls.get(index, 0)
        calls[index] = first + len(piece.tool_calls)
        delta["tool_calls"] = [
            {
                "index": first + place,
                "id": identifier("call_", f"{asked.ask.request_id}\0{index}\0{first + place}", 24),
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for place, (name, arguments) in enumerate(piece.tool_calls)
        ]
    if not delta and piece.finish is None and not piece.logprobs:
        return None
    logprobs = {"content": [score_entry(each) for each in piece.logprobs], "refusal": None} if piece.logprobs else None
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": piece.finish}


def _text_choice(piece: Piece, index: int) -> dict[str, Any] | None:
    if not piece.text and piece.finish is None:
        return None
    return {"index": index, "text": piece.text, "logprobs": None, "finish_reason": piece.finish}


def _ranking(results: Sequence[Any], asked: Asked, reply: Reply) -> dict[str, Any]:
    texts = asked.body.texts()
    ranked = [
        {"index": each["index"], "relevance_score": each["score"]}
        | ({"document": {"text": texts[each["index"]]}} if asked.body.return_documents else {})
        for each in results[0][: asked.body.top_n]
    ]
    usage = {"prompt_tokens": reply.num_tokens, "total_tokens": reply.num_tokens}
    return {"id": _identity(asked), "model": asked.body.model, "results": ranked, "usage": usage}


def _identity(asked: Asked) -> str:
    return _PREFIXES[type(asked.body)] + asked.ask.request_id


_PREFIXES: dict[type[Any], str] = {ServedChat: "chatcmpl-", ServedCompletion: "cmpl-", RerankBody: "rerank-"}
