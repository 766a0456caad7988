"""What answers look like, as types that JSON Schemas come from. Knows their fields; not how they are filled."""

from __future__ import annotations

from typing import Literal

from hfray.serving.hf.fields import Fields


class Label(Fields):
    label: str
    score: float


class Entity(Fields):
    entity_group: str | None = None
    """The type of a group of tokens."""
    entity: str | None = None
    """The model's tag; with aggregation_strategy none."""
    score: float
    word: str
    start: int
    end: int


class Answer(Fields):
    answer: str
    score: float
    start: int
    end: int


class MaskToken(Fields):
    sequence: str
    score: float
    token: int
    token_str: str
    tokenStr: str  # noqa: N815 - the published schema demands this spelling


class Foreseen(Fields):
    loss: float
    """Nats a token."""
    perplexity: float
    tokens: int
    """Over how many; the first is not among them, as nothing comes before it."""


class Rank(Fields):
    index: int
    """The place of the text in `texts`."""
    score: float
    text: str | None = None


class Summary(Fields):
    summary_text: str


class TranslatedText(Fields):
    translation_text: str


class WrittenText(Fields):
    generated_text: str


class GeneratedToken(Fields):
    id: int
    text: str
    logprob: float | None
    special: bool


class Details(Fields):
    finish_reason: Literal["length", "eos_token", "stop_sequence"]
    generated_tokens: int
    prefill: list[GeneratedToken]
    """Always empty."""
    seed: int | None = None
    tokens: list[GeneratedToken]
    top_tokens: list[list[GeneratedToken]] | None = None


class GeneratedText(Fields):
    generated_text: str
    details: Details | None = None


class StreamDetails(Fields):
    finish_reason: Literal["length", "eos_token", "stop_sequence"]
    generated_tokens: int
    input_length: int
    seed: int | None = None


class StreamEvent(Fields):
    index: int
    token: GeneratedToken
    top_tokens: list[GeneratedToken] | None = None
    generated_text: str | None = None
    """All of it, in the last event."""
    details: StreamDetails | None = None
    """In the last event."""
