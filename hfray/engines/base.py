"""The contract of an engine: items in, outputs out, in order. Knows tensors and tokens; not text, rows or Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from hfray.errors import ItemError
from hfray.types import Item, Output

Outputs = list[Output | ItemError]
Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Log-probabilities of one step, under the model alone: of the token taken, and of the likeliest, best first."""

    logprob: float
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a stream; the last one says why the text ends with it."""

    id: int
    finish: Finish | None = None
    scores: TokenScores | None = None
    """Where the item asks for log-probabilities."""


def score_arrays(scores: Sequence[TokenScores], num_top: int) -> Output:
    """What an output holds of them: see `types.Generated`."""
    return {
        "logprobs": np.array([each.logprob for each in scores], np.float32),
        "top_ids": np.array([each.top_ids for each in scores], np.int64).reshape(len(scores), num_top),
        "top_logprobs": np.array([each.top_logprobs for each in scores], np.float32).reshape(len(scores), num_top),
    }


@dataclass(slots=True)
class EngineStats:
    """What an engine counted since it was made. Tokens are model positions, padding apart."""

    items: int = 0
    computed_items: int = 0
    """Without those answered by an equal item."""
    batches: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    """Positions computed, padding included."""
    generated_tokens: int = 0
    seconds: float = 0.0
    """Time in which the model's thread worked."""
    out_of_memory: int = 0
    working_since: float | None = None
    """When the model began what it computes now (time.monotonic()); None: it has nothing to do."""


class Engine(Protocol):
    """One thread owns the model; everybody else submits to it."""

    stats: EngineStats

    @property
    def alive(self) -> bool:
        """Whether the model's thread is there to answer."""
        ...

    def submit(self, items: Sequence[Item]) -> Future[Outputs]:
        """Queues the items of one caller; the future holds one output or ItemError per item, in order.

        Raises (through the future) EngineError when the model or device itself is lost.
        """
        ...

    def run(self, items: Sequence[Item]) -> Outputs:
        """`submit` and wait."""
        ...

    def close(self) -> None:
        """Ends the thread; pending futures fail with EngineError."""
        ...


class StreamingEngine(Engine, Protocol):
    """An engine that generates, and shows its tokens while they come."""

    def stream(self, item: Item) -> AsyncIterator[Token]:
        """The new tokens of one item. Raises ItemError or EngineError; a reader that stops early cancels the item."""
        ...
