"""Bodies of OpenAI's requests as an endpoint takes them: those of batch files, with streams and with bounds. Knows
the fields of the API and an endpoint's limits; not HTTP, not models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired, Self

from pydantic import ConfigDict, Field, WithJsonSchema, model_validator
from typing_extensions import TypedDict

from hfray.errors import RowError
from hfray.serving.errors import RequestError
from hfray.serving.front import MAX_SEED, num_chars, with_seed
from hfray.serving.messages import Card
from hfray.tasks.generation_options import most_new_tokens
from hfray.tasks.openai.requests import ChatBody, CompletionBody, EmbeddingBody, GeneratingBody, parse_body
from hfray.types import Row, Strict

MAX_CHOICES = 8
MAX_TOKEN_ID = 2**31 - 1


class StreamOptions(Strict):
    """How a stream is sent."""

    model_config = ConfigDict(strict=True)
    include_usage: bool = False
    """Whether its last event tells the numbers of tokens."""
    include_obfuscation: bool = False
    """Taken, without effect."""


StopText = Annotated[str, Field(min_length=1, max_length=64)]
Stop = StopText | Annotated[tuple[StopText, ...], Field(max_length=4, strict=False)]
StopTokens = Annotated[tuple[Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)], ...], Field(max_length=16, strict=False)]
TopK = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
Seed = Annotated[int, Field(ge=-MAX_SEED, lt=2 * MAX_SEED)]
Penalty = Annotated[float, Field(ge=0.01, le=100)]
Neutral = Annotated[float | None, WithJsonSchema({"enum": [0, None], "default": None})]
NoBias = Annotated[
    dict[str, float] | None,
    WithJsonSchema({"anyOf": [{"type": "object", "maxProperties": 0}, {"type": "null"}], "default": None}),
]


PartKind = Annotated[str, WithJsonSchema({"enum": ["text", "refusal"]})]
"""Another one is refused with its name, further on."""


class Part(TypedDict):
    """A part of a message's content."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    type: PartKind
    text: NotRequired[str]
    refusal: NotRequired[str]


class Message(TypedDict):
    """What else a message has is the template's."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: NotRequired[str | list[Part] | None]
    name: NotRequired[str | None]
    tool_calls: NotRequired[list[dict[str, Any]] | None]
    tool_call_id: NotRequired[str | None]


class ResponseFormat(TypedDict):
    type: Literal["text"]


class Bounded(GeneratingBody):
    """What both generating routes bound more tightly than a batch file, and may stream."""

    model_config = ConfigDict(strict=True)
    stream: bool | None = None  # type: ignore[assignment]
    stream_options: StreamOptions | None = None  # type: ignore[assignment]
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    stop: Stop | None = None
    stop_token_ids: StopTokens | None = None
    seed: Seed | None = None
    top_k: TopK | None = None
    repetition_penalty: Penalty | None = None
    frequency_penalty: Neutral = None
    presence_penalty: Neutral = None
    logit_bias: NoBias = None


class ServedChat(Bounded, ChatBody):
    """/v1/chat/completions"""

    messages: list[Message] = Field(min_length=1)
    response_format: ResponseFormat | None = None  # type: ignore[assignment]


class ServedCompletion(Bounded, CompletionBody):
    """/v1/completions"""

    prompt: str | Annotated[tuple[str, ...], Field(min_length=1, max_length=2048, strict=False)]

    @model_validator(mode="after")
    def _check_stream(self) -> Self:
        if self.stream and self.logprobs is not None:
            raise ValueError("logprobs of a stream are not supported; leave one of the two out")
        if self.stream and self.echo:
            raise ValueError("echo of a stream is not supported; leave one of the two out")
        return self


class ServedEmbedding(EmbeddingBody):
    """/v1/embeddings"""

    model_config = ConfigDict(strict=True)
    input: str | Annotated[tuple[str, ...], Field(min_length=1, max_length=2048, strict=False)]


class RerankDocument(Strict):
    """A text as an object."""

    text: str


class RerankBody(Strict):
    """/v1/rerank, as Jina, Cohere and vLLM have it."""

    model_config = ConfigDict(strict=True)
    model: str
    query: str
    documents: Annotated[tuple[str | RerankDocument, ...], Field(min_length=1, strict=False)]
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = True
    user: Any = None

    def texts(self) -> list[str]:
        return [each if isinstance(each, str) else each.text for each in self.documents]

    def rows(self) -> list[Row]:
        return [{"query": self.query, "text": self.texts()}]


TASKS_OF: dict[type[Any], str] = {
    ServedChat: "text-generation",
    ServedCompletion: "text-generation",
    ServedEmbedding: "feature-extraction",
    RerankBody: "text-ranking",
}


def read_body(body: Any, kind: type[Any], card: Card) -> Any:
    """The body, checked against the API and the endpoint. Raises RequestError."""
    try:
        found = parse_body(body, kind)
    except RowError as error:
        raise _refused(error.message) from None
    if card.task != TASKS_OF[kind]:
        raise _refused(f"model: {card.name} does {card.task}, and this route is for {TASKS_OF[kind]}")
    if isinstance(found, ServedChat) and not card.has_chat:
        raise _refused(f"model: {card.name} has no chat template; use /v1/completions")
    _check_texts(found, card.limits.max_chars)
    num_rows = len(found.documents) if isinstance(found, RerankBody) else len(found.rows())
    most = card.limits.max_inputs
    if num_rows > most:
        raise _refused(
            f"{'documents' if isinstance(found, RerankBody) else 'input'}: {num_rows} inputs, at most {most}"
        )
    if isinstance(found, GeneratingBody):
        _check_lengths(found, card, num_rows)
        if found.stream and num_rows > 1:
            raise _refused("prompt: a stream has one prompt")
    return found


def changes_of(body: GeneratingBody, card: Card) -> tuple[dict[str, Any], int]:
    """The options that a body sets, with a seed where it has none, and how many times each text is given."""
    changes = body.options()
    copies = 1
    if not changes.get("temperature", card.options.get("temperature")) and changes.get("num_return_sequences", 1) > 1:
        copies = changes.pop("num_return_sequences")
    return with_seed(changes, card.options), copies


def model_field(body: Any) -> str:
    """Which model a body asks for. Raises RequestError."""
    name = body.get("model") if isinstance(body, Mapping) else None
    if not isinstance(body, Mapping):
        raise _refused(f"body: is {type(body).__name__}, not an object")
    if not isinstance(name, str) or not name:
        raise _refused("model: is missing")
    return name


def _check_texts(body: Any, max_chars: int) -> None:
    """Before anything is tokenized. What a chat has counts together, as it becomes one text."""
    for name in ("messages", "tools", "prompt", "input", "query", "documents"):
        value = getattr(body, name, None)
        if isinstance(body, RerankBody) and name == "documents":
            value = body.texts()
        lengths = [num_chars(each) for each in value] if isinstance(value, list | tuple) else [num_chars(value)]
        longest = sum(lengths) if name in ("messages", "tools") else max(lengths, default=0)
        if longest > max_chars:
            raise _refused(f"{name}: a text of {longest:,} characters, and at most {max_chars:,} are taken")


def _check_lengths(body: GeneratingBody, card: Card, num_rows: int) -> None:
    options = {**card.options, **body.options()}
    asked = most_new_tokens({"max_new_tokens": options.get("max_new_tokens")}, 1)
    most = card.limits.max_new_tokens
    if asked > most:
        raise _refused(f"max_tokens: {asked} is over this endpoint's {most}")
    if (body.min_tokens or 0) > asked:
        raise _refused(f"min_tokens: {body.min_tokens} is over max_tokens, {asked}")
    total = most_new_tokens(options, num_rows)
    if total > card.limits.max_total_tokens:
        raise _refused(
            f"max_tokens: {total} tokens for all texts together are over this endpoint's {card.limits.max_total_tokens}"
        )


def _refused(message: str) -> RequestError:
    field, colon, _ = message.partition(": ")
    return RequestError(message, status=422, param=field if colon and field.isidentifier() else None)
