"""A request of the Hugging Face protocol in terms of a task, and how much one may ask for. Knows neither bodies nor
models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hfray.spec.endpoint import LimitsSpec
from hfray.types import Row

BODIES_WITH_IMAGES = 10
"""How many times longer than others a body with images may be."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for; a request over one of them is refused, never cut down."""

    max_inputs: int = 64
    """Most entries of `inputs`."""
    max_items: int = 256
    """Most model inputs of one request: inputs times labels, or times sequences; texts to rank or compare."""
    max_chars: int = 200_000
    """Most characters of one text; an image in base64 is none."""
    max_image_bytes: int = 10 * 2**20
    max_image_pixels: int = 64_000_000
    max_new_tokens: int = 4096
    max_total_tokens: int = 65_536
    """Most tokens that are written for all texts of a request together."""
    max_sequences: int = 8
    """Most texts that one input is continued to."""
    max_beams: int = 8
    max_candidates: int = 100
    """Most answers of one input where each costs something: tokens for a mask, spans of a context."""
    max_stride_tokens: int = 128
    """Most tokens that neighbouring windows of a long text share: a stride close to a window's length makes a window of
    each token."""

    @classmethod
    def of(cls, endpoint: LimitsSpec) -> Limits:
        """Those that an endpoint states, and the defaults."""
        names = ("max_inputs", "max_chars", "max_new_tokens", "max_total_tokens", "max_image_pixels")
        return cls(
            **{name: getattr(endpoint, name) for name in names},
            max_items=max(cls.max_items, endpoint.max_inputs),
            max_image_bytes=BODIES_WITH_IMAGES * endpoint.max_body_bytes,
        )


@dataclass(frozen=True, slots=True)
class Call:
    """A request, checked."""

    task: str
    rows: tuple[Row, ...]
    changes: dict[str, Any]
    """Options of the task that the request sets over the endpoint's own, under the names of the task's `Options`."""
    many: bool
    """Whether `inputs` is a list, so that the answer has one entry per input."""
    stream: bool = False
    adapter: str | None = None
    """The adapter that the request names (`adapter_id`); whoever knows the endpoint's adapters must look it up."""
    form: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that only the answer's form follows: details, return_text, dimensions."""
