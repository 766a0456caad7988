"""What answers of OpenAI's routes look like, as types that JSON Schemas come from. Knows their fields; not how they are
filled."""

from __future__ import annotations

from typing import Literal

from hfray.serving.hf.fields import Fields

Finish = Literal["stop", "length", "tool_calls"]


class Usage(Fields):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ReadUsage(Fields):
    prompt_tokens: int
    total_tokens: int


class Score(Fields):
    token: str
    logprob: float
    bytes: list[int] | None
    """None: the token alone is no whole character."""


class TokenScore(Score):
    top_logprobs: list[Score]


class ChatLogprobs(Fields):
    content: list[TokenScore]
    refusal: None


class Function(Fields):
    name: str
    arguments: str
    """JSON, as the model wrote it."""


class ToolCall(Fields):
    id: str
    type: Literal["function"]
    function: Function


class ToolCallDelta(ToolCall):
    index: int


class AnswerMessage(Fields):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | None = None
    """What the model wrote before its answer, where it reasons."""
    tool_calls: list[ToolCall] | None = None


class ChatChoice(Fields):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatCompletion(Fields):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Delta(Fields):
    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(Fields):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: Finish | None


class ChatCompletionChunk(Fields):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    """In the last event, where `stream_options.include_usage` asks for it."""


class CompletionLogprobs(Fields):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(Fields):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Finish | None
    """None: more comes, in a stream."""


class Completion(Fields):
    """Also each event of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class Embedding(Fields):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Numbers, or in base64 their little-endian float32."""


class EmbeddingList(Fields):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: ReadUsage


class Document(Fields):
    text: str


class RankedDocument(Fields):
    index: int
    """The place in `documents`."""
    relevance_score: float
    document: Document | None = None


class Ranking(Fields):
    id: str
    model: str
    results: list[RankedDocument]
    """Best first."""
    usage: ReadUsage


class Model(Fields):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Fields):
    object: Literal["list"]
    data: list[Model]


class ModelCard(Fields):
    """What GET /models/NAME tells."""

    id: str
    pipeline_tag: str
    adapters: list[str]
    labels: list[str]
    max_length: int | None
