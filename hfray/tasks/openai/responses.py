"""Results of tasks as bodies of OpenAI's responses, and errors as its error objects. Knows the fields of the API; not
requests, not files.

A body has neither `id` nor `created` here: whoever sends or writes it knows them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hfray.errors import RowError
from hfray.tasks.openai.requests import Body, EmbeddingBody

FAULTS = frozenset({"ModelFailure", "OutOfMemory", "NonFiniteOutput", "CacheTooSmall", "Cancelled", "WrongKind"})
"""Types of errors that no request is to blame for."""
_CODES = {
    "InvalidUrl": (400, "invalid_url"),
    "InvalidMethod": (400, "invalid_method"),
    "ModelNotFound": (404, "model_not_found"),
    "PromptTooLong": (400, "context_length_exceeded"),
}
_FIELD = re.compile(r"([a-z_]+): ")


def chat_completion(results: Sequence[Any], body: Body, key: str) -> dict[str, Any]:
    """results: lists of detailed results, one list per row. key: what ids are made of."""
    (choices,) = results
    return {
        "object": "chat.completion",
        "model": body.model,
        "choices": [_chat_choice(number, choice, key) for number, choice in enumerate(choices)],
        "usage": _usage(results),
    }


def completion(results: Sequence[Any], body: Body, key: str) -> dict[str, Any]:
    choices = [choice for row in results for choice in row]
    return {
        "object": "text_completion",
        "model": body.model,
        "choices": [
            {
                "index": number,
                "text": choice["text"],
                "logprobs": None if choice["logprobs"] is None else _completion_logprobs(choice["logprobs"]),
                "finish_reason": choice["finish"],
            }
            for number, choice in enumerate(choices)
        ],
        "usage": _usage(results),
    }


def embeddings(results: Sequence[Any], body: Body, num_tokens: int) -> dict[str, Any]:
    """results: vectors. Raises RowError for another number of dimensions than they have."""
    if not isinstance(body, EmbeddingBody):
        raise TypeError("embeddings answer an embedding request")
    size = len(results[0])
    if body.dimensions not in (None, size):
        raise RowError(f"dimensions: the model's embeddings have {size}", type="InvalidRequest")
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": number, "embedding": _vector(each, body.encoding_format)}
            for number, each in enumerate(results)
        ],
        "model": body.model,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }


def error_response(error: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """(status, body) for the record of a RowError."""
    kind, message = error["type"], error["message"]
    status, code = _CODES.get(kind, (500, "server_error") if kind in FAULTS else (400, None))
    field = _FIELD.match(message)
    says = {
        "message": message,
        "type": "server_error" if status == 500 else "invalid_request_error",
        "param": field[1] if field is not None else None,
        "code": code,
    }
    return status, {"error": says}


def error_code(kind: str) -> str | None:
    """OpenAI's `code` for the type of a RowError, where it has one."""
    return _CODES.get(kind, (0, None))[1]


def identifier(prefix: str, key: str, length: int = 32) -> str:
    """The same for the same key."""
    return prefix + hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()[:length]


def _chat_choice(number: int, choice: Mapping[str, Any], key: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice["text"], "refusal": None}
    if choice["reasoning"] is not None:
        message["reasoning_content"] = choice["reasoning"]  # not OpenAI's, but what open models' servers call it
    if choice["tool_calls"]:
        message["content"] = choice["text"] or None
        message["tool_calls"] = [
            {
                "id": identifier("call_", f"{key}\0{number}\0{place}", 24),
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for place, call in enumerate(choice["tool_calls"])
        ]
    logprobs = choice["logprobs"]
    if logprobs is not None:
        logprobs = {"content": [score_entry(each) for each in logprobs], "refusal": None}
    return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": choice["finish"]}


def score_entry(each: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of a detailed result's `logprobs` as chats have it."""
    return {**_score(each), "top_logprobs": [_score(top) for top in each["top"]]}


def _score(each: Mapping[str, Any]) -> dict[str, Any]:
    token = each["token"]
    # Half a character has no bytes of its own to tell: only the token next to it makes it one.
    whole = "\N{REPLACEMENT CHARACTER}" not in token
    return {"token": token, "logprob": each["logprob"], "bytes": list(token.encode()) if whole else None}


def _completion_logprobs(logprobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    offsets = np.cumsum([0, *[len(each["token"]) for each in logprobs]])[:-1]
    return {
        "tokens": [each["token"] for each in logprobs],
        "token_logprobs": [each["logprob"] for each in logprobs],
        "top_logprobs": [{top["token"]: top["logprob"] for top in each["top"]} for each in logprobs],
        "text_offset": [int(offset) for offset in offsets],
    }


def _usage(results: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, int]:
    prompt = sum(row[0]["prompt_tokens"] for row in results)
    new = sum(choice["completion_tokens"] for row in results for choice in row)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def _vector(values: Any, encoding: str) -> Any:
    vector = np.asarray(values, np.float32)
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return [float(str(value)) for value in vector]  # as few digits as tell a float32 from its neighbours
