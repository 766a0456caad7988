"""Texts that come token by token: the requests and events of OpenAI's routes. Knows their bodies and the bounds of an
endpoint; nothing of Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hfray.serving.messages import Card
from hfray.serving.openai_bodies import ServedChat
from hfray.tasks.generation_options import DEFAULT_NEW_TOKENS

CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"


@dataclass(frozen=True, slots=True)
class Sampling:
    """As the sliders stand."""

    max_tokens: int = DEFAULT_NEW_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0

    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = {"max_tokens": int(self.max_tokens), "temperature": self.temperature}
        return found | ({"top_p": self.top_p} if self.temperature > 0 else {})


@dataclass(frozen=True, slots=True)
class Range:
    """A slider's."""

    least: float
    most: float
    value: float


def bounds(field: str) -> tuple[float | None, float | None]:
    """The least and the most that the API takes."""
    found: dict[str, float] = {}
    for each in ServedChat.model_fields[field].metadata:
        for name in ("ge", "gt", "le", "lt"):
            if getattr(each, name, None) is not None:
                found[name] = getattr(each, name)
    return found.get("ge", found.get("gt")), found.get("le", found.get("lt"))


def ranges(card: Card) -> dict[str, Range]:
    """By the names of `Sampling`: the API's bounds, the endpoint's limits, and where the endpoint itself stands."""
    limit = card.limits.max_new_tokens
    most = max(2, limit if card.max_length is None else min(limit, card.max_length - 1))
    default = int(card.options.get("max_new_tokens") or DEFAULT_NEW_TOKENS)
    least_t, most_t = bounds("temperature")
    least_p, most_p = bounds("top_p")
    return {
        "max_tokens": Range(1, most, min(default, max(1, most // 2))),
        "temperature": Range(least_t or 0.0, most_t or 2.0, float(card.options.get("temperature") or 0.0)),
        "top_p": Range((least_p or 0.0) + 0.01, most_p or 1.0, float(card.options.get("top_p") or 1.0)),
    }


def chat_body(model: str, messages: Sequence[dict[str, str]], sampling: Sampling) -> dict[str, Any]:
    return {"model": model, "messages": list(messages), "stream": True, **sampling.body()}


def completion_body(model: str, prompt: str, sampling: Sampling) -> dict[str, Any]:
    return {"model": model, "prompt": prompt, "stream": True, **sampling.body()}


def piece(event: dict[str, Any]) -> tuple[str, str]:
    """What an event adds to the text, and to the reasoning before it."""
    for choice in event["choices"]:
        if "delta" in choice:
            delta = choice["delta"]
            return delta.get("content") or "", delta.get("reasoning_content") or ""
        return choice["text"], ""
    return "", ""
