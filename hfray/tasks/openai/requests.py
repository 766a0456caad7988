"""Bodies of OpenAI's requests, checked, as rows and options of a task. Knows the fields of the API; not models, not
what an answer looks like.

What a body leaves out is the job's. Beyond OpenAI's own fields those of vLLM's server are taken that are options here.
A field that would change the answer and cannot be followed is an error, not ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from hfray.errors import RowError
from hfray.types import Row, Strict

OPTION_FIELDS = {"max_new_tokens": "max_tokens", "num_return_sequences": "n", "min_new_tokens": "min_tokens"}
"""Options whose field has another name."""


class Body(Strict):
    """What every request may have. Fields about bookkeeping are taken and have no effect."""

    model: str
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    prompt_cache_options: Any = None

    def rows(self) -> list[Row]:
        """One for each text that is continued or embedded."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """Options of the task that the body sets."""
        return {}


class GeneratingBody(Body):
    """Chat completions and completions."""

    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int | None = Field(default=None, ge=1, le=128)
    stop: str | tuple[str, ...] | None = None
    seed: int | None = None
    stream: Literal[False] | None = None
    stream_options: None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    min_tokens: int | None = Field(default=None, ge=0)
    stop_token_ids: tuple[int, ...] | None = None

    @field_validator("frequency_penalty", "presence_penalty", "logit_bias")
    @classmethod
    def _check_neutral(cls, value: Any) -> Any:
        if value:
            raise ValueError("is not supported; repetition_penalty is")
        return value

    def options(self) -> dict[str, Any]:
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        found = {
            "max_new_tokens": self.max_tokens,
            "min_new_tokens": self.min_tokens,
            "num_return_sequences": self.n,
            "stop": stop,
            "seed": None if self.seed is None else self.seed % 2**63,
        }
        same = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stop_token_ids")
        found |= {name: getattr(self, name) for name in same}
        return {"details": True, **{name: value for name, value in found.items() if value is not None}}


class ChatBody(GeneratingBody):
    """/v1/chat/completions"""

    messages: list[Any] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[Literal["text"]] | None = None
    continue_final_message: bool | None = None

    @field_validator("response_format")
    @classmethod
    def _check_format(cls, value: Any) -> Any:
        if value is not None and value.get("type") != "text":
            raise ValueError(f"type {value.get('type')!r:.40} is not supported; only text is")
        return value

    @model_validator(mode="after")
    def _check_logprobs(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    def rows(self) -> list[Row]:
        tools = None if self.tool_choice == "none" else self.tools
        return [{"messages": [_plain(message, place) for place, message in enumerate(self.messages)], "tools": tools}]

    def options(self) -> dict[str, Any]:
        found = super().options()
        if self.max_completion_tokens is not None:
            found["max_new_tokens"] = self.max_completion_tokens
        if self.logprobs:
            found["logprobs"] = self.top_logprobs or 0
        if self.continue_final_message is not None:
            found["continue_final_message"] = self.continue_final_message
        return found


class CompletionBody(GeneratingBody):
    """/v1/completions"""

    prompt: str | Annotated[tuple[str, ...], Field(min_length=1, max_length=2048)]
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool | None = None
    best_of: int | None = None
    suffix: None = None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.best_of not in (None, self.n or 1):
            raise ValueError("best_of other than n is not supported")
        if self.echo and self.logprobs is not None:
            raise ValueError("echo together with logprobs is not supported")
        return self

    def rows(self) -> list[Row]:
        return [{"prompt": text} for text in ((self.prompt,) if isinstance(self.prompt, str) else self.prompt)]

    def options(self) -> dict[str, Any]:
        found = super().options()
        if self.logprobs is not None:
            found["logprobs"] = self.logprobs
        if self.echo is not None:
            found["return_full_text"] = self.echo
        return found


class EmbeddingBody(Body):
    """/v1/embeddings"""

    input: str | Annotated[tuple[str, ...], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)

    def rows(self) -> list[Row]:
        return [{"text": text} for text in ((self.input,) if isinstance(self.input, str) else self.input)]


def parse_body(body: Any, kind: type[Body]) -> Body:
    """Raises RowError InvalidRequest, its message beginning with the field."""
    if not isinstance(body, Mapping):
        raise RowError(f"body: is {type(body).__name__}, not an object", type="InvalidRequest")
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> RowError:
    """The first mistake, under the field's name in the API."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "body"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "this field is not known, or not supported"
    return RowError(f"{OPTION_FIELDS.get(name, name)}: {message}", type="InvalidRequest")


def _plain(message: Any, place: int) -> Any:
    """A message as templates take it: parts of text joined, a developer's as the system's."""
    if not isinstance(message, Mapping):
        return message
    role = "system" if message.get("role") == "developer" else message.get("role")
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(_text(part, f"messages[{place}].content[{number}]") for number, part in enumerate(content))
    return {**message, "role": role, "content": content}


def _text(part: Any, where: str) -> str:
    if isinstance(part, Mapping) and part.get("type") in ("text", "refusal"):
        text = part.get(part["type"])
        if isinstance(text, str):
            return text
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise RowError(f"messages: {where} is of the type {kind!r:.40}; only text is supported", type="InvalidRequest")
